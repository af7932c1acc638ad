"""A stratum 1's copy has a reference log of its own, and is whole all the same; what is wrong with it is told."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from services.repository.native.check.checker import Checker
from services.repository.native.records import REFLOG, SNAPSHOT_MARK
from services.repository.native.storage.directory import DirectoryStorage
from tests.support.forgery import Forgery, forged_key
from tests.support.golden import GOLDEN_NAME
from tests.support.native import NativeSite
from tests.support.stratum1 import Replica


@pytest.fixture
def replica(tmp_path: Path, forgery: Forgery) -> Replica:
    """A copy of the forgery, made by `snapshot`."""
    return Replica(forgery.root, tmp_path / "replica")


def defects(replica: Replica) -> list[str]:
    report = Checker(DirectoryStorage(replica.root), name=GOLDEN_NAME, master_keys=[forged_key()]).run()
    return [f"{problem.place}: {problem.what}" for problem in report.problems]


def test_a_replica_is_whole(forgery: Forgery, replica: Replica) -> None:
    forgery.seal()
    replica.snapshot()
    assert (replica.root / REFLOG).read_bytes() != (forgery.root / REFLOG).read_bytes()
    assert defects(replica) == []
    replica.snapshot()
    assert defects(replica) == []


def test_a_replica_need_not_hold_what_came_before_its_first_snapshot(forgery: Forgery, replica: Replica) -> None:
    forgery.fields["G"] = "no"
    del forgery.fields["H"]  # whose tags would bring the predecessor
    forgery.seal()
    replica.snapshot()
    assert defects(replica) == []
    (replica.root / SNAPSHOT_MARK).unlink()
    assert "replicas fail without it" in " ".join(defects(replica))


@pytest.mark.parametrize(
    ("path", "defect"),
    [
        ("data/e8/ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78", "its object {path} is missing"),
        ("data/85/e4f386da0d5d77c7f66cf2f58e10951f24b653M", ".cvmfspublished: its meta information {path} is missing"),
    ],
)
def test_what_a_replica_has_lost_is_told(forgery: Forgery, replica: Replica, path: str, defect: str) -> None:
    forgery.seal()
    replica.snapshot()
    (replica.root / path).unlink()
    assert defect.format(path=path) in " ".join(defects(replica))


def test_the_log_of_a_replica_lists_what_its_manifest_names(forgery: Forgery, replica: Replica) -> None:
    forgery.seal()
    replica.snapshot()
    with closing(sqlite3.connect(replica.root / REFLOG)) as log:
        log.execute("DELETE FROM refs WHERE type = 2")
        log.commit()
    (defect,) = defects(replica)
    assert defect.endswith("H, which the manifest names")


def test_a_repository_that_was_restored_from_a_replica_is_none(site: NativeSite, tmp_path: Path) -> None:
    replica = Replica(site.root, tmp_path / "replica")
    replica.snapshot()
    for name in (SNAPSHOT_MARK, REFLOG):
        (site.root / name).write_bytes((replica.root / name).read_bytes())
    (problem,) = site.problems()
    assert problem.startswith(f"{REFLOG}: its hash is")
