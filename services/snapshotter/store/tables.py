"""The tables of the database of snapshots, and what their rows are."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Final

from services.common.descriptor import LayerUrl
from services.snapshotter.store.model import Kind, Snapshot

__all__ = ["CHAIN", "FROM_FIRST", "SCHEMA", "SELECT", "VERSION", "encode_labels", "kept_labels", "snapshot_of"]

VERSION: Final = 2
"""Of the tables, as the database notes it."""

SCHEMA: Final = """
CREATE TABLE snapshots (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    parent INTEGER REFERENCES snapshots(number),
    kind INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    labels TEXT NOT NULL,  -- JSON
    size INTEGER,  -- of a committed snapshot, once somebody has asked
    inodes INTEGER,
    published TEXT,  -- JSON: the layers that a committed snapshot is in a thin image, once they have been uploaded
    remote TEXT  -- URL of the published layer that a committed snapshot is, without files of its own
) STRICT;
CREATE INDEX children ON snapshots(parent);
CREATE TABLE links (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    target TEXT NOT NULL UNIQUE
) STRICT;
"""
FROM_FIRST: Final = "ALTER TABLE snapshots ADD COLUMN remote TEXT;"
"""Makes the tables of version 1 those of version 2."""

SELECT: Final = """
SELECT s.number, s.name, s.parent AS parent_number, coalesce(p.name, '') AS parent,
    s.kind, s.created, s.updated, s.labels, s.remote
FROM snapshots s LEFT JOIN snapshots p ON p.number = s.parent
"""
CHAIN: Final = """
WITH RECURSIVE chain(depth, number) AS (
    VALUES (0, ?)
    UNION ALL
    SELECT depth + 1, parent FROM chain JOIN snapshots USING (number) WHERE parent IS NOT NULL
)
SELECT s.number, s.name, s.parent AS parent_number, coalesce(p.name, '') AS parent,
    s.kind, s.created, s.updated, s.labels, s.remote
FROM chain JOIN snapshots s ON s.number = chain.number LEFT JOIN snapshots p ON p.number = s.parent
ORDER BY depth
"""


def snapshot_of(row: sqlite3.Row) -> Snapshot:
    """Return what a row of one of the queries says."""
    return Snapshot(
        number=row["number"],
        name=row["name"],
        parent_number=row["parent_number"],
        parent=row["parent"],
        kind=Kind(row["kind"]),
        created=row["created"],
        updated=row["updated"],
        labels=json.loads(row["labels"]),
        remote=None if row["remote"] is None else LayerUrl(row["remote"]),
    )


def kept_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that are kept: an empty one is none."""
    return {key: value for key, value in labels.items() if value}


def encode_labels(labels: Mapping[str, str]) -> str:
    """Write labels as a row has them."""
    return json.dumps(labels, sort_keys=True)
