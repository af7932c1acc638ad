"""A publisher goes on without its own record of its revisions, which can be damaged like any file."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.common.digest import Digest
from services.repository.native.errors import StorageError
from services.repository.native.writer.state import DamagedStateError, Highest, LocalState


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def garbage(path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)


def damaged_inside(path: Path) -> None:
    """Leave the file one that SQLite opens."""
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


def directory(path: Path) -> None:
    path.unlink()
    (path / "something").mkdir(parents=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with some content."""
    path = tmp_path / "state.sqlite"
    with closing(LocalState(path)) as state:
        state.note(Highest(7, 70), [Digest(f"{number:064x}") for number in range(500)])
    return path


@pytest.mark.parametrize("damage", [cut, garbage, damaged_inside, directory])
def test_a_damaged_file_is_put_aside(path: Path, damage: Callable[[Path], None]) -> None:
    damage(path)
    content = None if path.is_dir() else path.read_bytes()
    with pytest.raises(DamagedStateError, match="start the publisher of this state anew, which puts it aside"):
        LocalState(path)
    with capture_logs() as logs, closing(LocalState.open_or_replace(path)) as state:
        assert state.highest() == Highest(0, 0)
        state.note(Highest(8, 80))
    (entry,) = logs
    aside = Path(entry["aside"])
    assert (entry["log_level"], aside.parent) == ("error", path.parent)
    assert (aside / "something").is_dir() if content is None else aside.read_bytes() == content
    with capture_logs() as logs, closing(LocalState.open_or_replace(path)) as state:
        assert state.highest() == Highest(8, 80)
    assert logs == []


def test_an_empty_file_is_a_new_one(path: Path) -> None:
    path.write_bytes(b"")
    with closing(LocalState.open_or_replace(path)) as state:
        assert state.highest() == Highest(0, 0)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_what_cannot_be_opened_is_not_put_aside(tmp_path: Path) -> None:
    """SQLite says the same of a file that it may not read; root may read all of them."""
    with pytest.raises(StorageError, match="unable to open") as raised:
        LocalState.open_or_replace(tmp_path / "nowhere/state.sqlite")
    assert not isinstance(raised.value, DamagedStateError)
    assert list(tmp_path.iterdir()) == []
