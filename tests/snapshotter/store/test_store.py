"""What a power failure takes, the next start makes good or tells of."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.snapshotter.store.model import Kind
from services.snapshotter.store.store import SnapshotStore
from tests.support.sqlite_files import open_below


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_a_snapshot_that_has_lost_its_directories_can_be_used(root: Path) -> None:
    store = SnapshotStore(root)
    snapshot = store.create(store.reserve(), "moby/1/container", "", Kind.ACTIVE, {}, None)
    store.diff(snapshot).rmdir()
    store.work(snapshot).rmdir()
    store.close()

    with capture_logs() as logs:
        again = SnapshotStore(root)
    assert [entry["event"] for entry in logs] == ["snapshot_has_lost_its_files"]
    assert list(again.diff(snapshot).iterdir()) == list(again.work(snapshot).iterdir()) == []
    assert again.remove("moby/1/container") == snapshot
    again.close()


def test_a_store_that_cannot_be_used_leaves_no_file_open(root: Path) -> None:
    (root / "reserve").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        SnapshotStore(root)
    assert open_below(root) == []


def test_a_link_whose_record_is_lost_leads_nobody_astray(root: Path, tmp_path: Path) -> None:
    store = SnapshotStore(root)
    place = Path(store.lower(tmp_path / "one"))
    (number,) = store.records.links().values()
    store.close()
    # The file system's journal was written, the database's log was not.
    lost = SnapshotStore(root)
    lost.records.forget_link(number)
    lost.close()
    assert place.is_symlink()

    again = SnapshotStore(root)
    assert not place.is_symlink()
    assert Path(again.lower(tmp_path / "other")).readlink() == tmp_path / "other"
    again.close()
