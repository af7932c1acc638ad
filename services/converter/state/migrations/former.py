"""The tables of converters before Alembic: SQLite files of versions 1 and 2, and how the first became the second.

The version is in the file's `user_version`. What is here never changes, since files of both versions are around.
"""

from typing import Final

__all__ = ["STEPS"]

_FIRST: Final = """
BEGIN IMMEDIATE;
CREATE TABLE clock (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    boot          TEXT NOT NULL,
    since_boot    REAL NOT NULL,
    steady        REAL NOT NULL,
    wall          REAL NOT NULL
) STRICT;
CREATE TABLE wishes (
    key           TEXT PRIMARY KEY,
    fingerprint   TEXT NOT NULL,
    due           REAL NOT NULL,
    failures      INTEGER NOT NULL DEFAULT 0,
    reason        TEXT,
    polled_at     REAL
) STRICT, WITHOUT ROWID;
CREATE TABLE images (
    name          TEXT PRIMARY KEY,
    digest        TEXT NOT NULL,
    changed_at    REAL NOT NULL,
    checked_at    REAL NOT NULL,
    reason        TEXT,
    missing       INTEGER NOT NULL DEFAULT 0,
    missing_since REAL,
    missing_last  REAL
) STRICT, WITHOUT ROWID;
CREATE INDEX images_missing ON images (missing) WHERE missing > 0;
CREATE TABLE copies (
    name          TEXT NOT NULL REFERENCES images (name),
    repository    TEXT NOT NULL,
    wish          TEXT NOT NULL,
    source        TEXT NOT NULL,
    gone_after    REAL,
    dropped_after REAL,
    state         TEXT NOT NULL CHECK (state IN ('wanted', 'asked', 'published', 'failed')),
    wanted        TEXT NOT NULL,
    due           REAL NOT NULL DEFAULT 0,
    attempts      INTEGER NOT NULL DEFAULT 0,
    reason        TEXT,
    wanted_at     REAL NOT NULL,
    asked_at      REAL,
    published     TEXT,
    published_at  REAL,
    dropped       REAL,
    dropped_why   TEXT,
    PRIMARY KEY (repository, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX copies_by_wish ON copies (wish);
CREATE INDEX copies_by_state ON copies (state, due);
CREATE INDEX copies_by_name ON copies (name);
CREATE INDEX copies_dropped ON copies (dropped) WHERE dropped IS NOT NULL;
CREATE TABLE creations (
    digest        TEXT PRIMARY KEY,
    created       REAL
) STRICT, WITHOUT ROWID;
CREATE TABLE thin_images (
    reference     TEXT PRIMARY KEY,
    name          TEXT NOT NULL,
    repository    TEXT NOT NULL,
    layout        TEXT NOT NULL,
    platforms     TEXT NOT NULL,
    digest        TEXT NOT NULL,
    pushed        TEXT,
    pushed_at     REAL,
    due           REAL NOT NULL DEFAULT 0,
    attempts      INTEGER NOT NULL DEFAULT 0,
    reason        TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX thin_images_by_name ON thin_images (repository, name);
PRAGMA user_version = 1;
COMMIT;
"""

_EMPTIED: Final = """
BEGIN IMMEDIATE;
ALTER TABLE images ADD COLUMN emptied INTEGER NOT NULL DEFAULT 0;
PRAGMA user_version = 2;
COMMIT;
"""

STEPS: Final = (_FIRST, _EMPTIED)
"""What makes version N + 1 of version N."""
