"""The database of the snapshots: what an earlier version of the program has left in it."""

import errno
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from services.common.descriptor import LayerUrl
from services.snapshotter.errors import StateError
from services.snapshotter.store.model import Kind, Snapshot
from services.snapshotter.store.records import Records
from tests.support.sqlite_files import open_below

_FIRST = """
CREATE TABLE snapshots (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    parent INTEGER REFERENCES snapshots(number),
    kind INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    labels TEXT NOT NULL,
    size INTEGER,
    inodes INTEGER,
    published TEXT
) STRICT;
CREATE INDEX children ON snapshots(parent);
CREATE TABLE links (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    target TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO snapshots VALUES (7, 'base', NULL, 3, 1, 2, '{"a": "b"}', 4096, 1, NULL);
PRAGMA user_version = 1;
"""


def _database(path: Path, script: str) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(script)
    connection.close()
    return path


def test_a_database_of_the_first_version_goes_on(tmp_path: Path) -> None:
    path = _database(tmp_path / "snapshots.sqlite", _FIRST)
    url = LayerUrl(f"cvmfs://test.example.org/.layers/aa/{'a' * 64}/layerfs")
    records = Records(path)
    base = records.find("base")
    assert (base.number, base.kind, base.labels, base.remote) == (7, Kind.COMMITTED, {"a": "b"}, None)
    assert records.create_remote(8, "key", "", {"ref": "1"}, reference="ref", url=url).remote == url
    records.close()
    records = Records(path)
    assert [(snapshot.number, snapshot.remote) for snapshot in records.all()] == [(7, None), (8, url)]
    records.close()


def test_a_database_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = _database(tmp_path / "snapshots.sqlite", "PRAGMA user_version = 99;")
    with pytest.raises(StateError, match="is of version 99, this program knows 2: upgrade it"):
        Records(path)
    assert open_below(tmp_path) == []


def test_what_is_synced_a_power_failure_leaves(tmp_path: Path) -> None:
    records = Records(tmp_path / "snapshots.sqlite")
    for number in range(1, 301):
        # Enough for the log to begin again at its beginning.
        records.create(number, f"moby/{number}/container", None, Kind.ACTIVE, {"label": "x" * 5000})
        records.sync()
        if number % 20 == 0:
            found = _after_power_failure(tmp_path, tmp_path / f"copy-{number}")
            assert [snapshot.number for snapshot in found] == list(range(1, number + 1))
    records.close()


def _after_power_failure(directory: Path, copy: Path) -> list[Snapshot]:
    """Read what is on the disk, and nothing of what is in memory only."""
    copy.mkdir()
    for name in ("snapshots.sqlite", "snapshots.sqlite-wal"):
        shutil.copyfile(directory / name, copy / name)
    records = Records(copy / "snapshots.sqlite")
    try:
        return records.all()
    finally:
        records.close()


def test_the_log_does_not_grow(tmp_path: Path) -> None:
    records = Records(tmp_path / "snapshots.sqlite")
    log = tmp_path / "snapshots.sqlite-wal"
    before = log.stat().st_size
    for number in range(1, 301):
        records.create(number, f"moby/{number}/container", None, Kind.ACTIVE, {"label": "x" * 5000})
    assert log.stat().st_size < before * 1.1
    records.close()


def test_a_log_that_has_no_room_grows_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", no_room)
        records = Records(tmp_path / "snapshots.sqlite")
    records.create(1, "moby/1/container", None, Kind.ACTIVE, {})
    records.sync()
    assert [snapshot.number for snapshot in _after_power_failure(tmp_path, tmp_path / "copy")] == [1]
    records.close()
