"""The database of the snapshots: what an earlier version of the program has left in it."""

import sqlite3
from pathlib import Path

import pytest

from services.common.descriptor import LayerUrl
from services.snapshotter.errors import StateError
from services.snapshotter.store.model import Kind
from services.snapshotter.store.records import Records

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
    with sqlite3.connect(path) as connection:
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
