"""The tables of publishers before Alembic: SQLite files of versions 1 to 8, and how each became the next.

The version is in the file's `user_version`. What is here never changes, since files of all these versions are around.
"""

from typing import Final

__all__ = ["STEPS"]

_LAYERS: Final = """
BEGIN IMMEDIATE;
CREATE TABLE layers (
    digest       TEXT PRIMARY KEY CHECK (length(digest) = 64),
    state        TEXT NOT NULL
                 CHECK (state IN ('announced', 'fetching', 'verified', 'publishing', 'published', 'failed')),
    attempts     INTEGER NOT NULL DEFAULT 0,
    share        INTEGER CHECK (share > 0),
    reason       TEXT,
    retryable    INTEGER NOT NULL DEFAULT 0,
    due          REAL NOT NULL DEFAULT 0,
    revision     INTEGER,
    announced_at REAL NOT NULL,
    updated_at   REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX layers_by_state ON layers (state, announced_at);
CREATE TABLE transactions (
    token        TEXT PRIMARY KEY,
    process      TEXT
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
COMMIT;
"""

_SIZES_AND_PAUSE: Final = """
BEGIN IMMEDIATE;
ALTER TABLE layers ADD COLUMN archive_size INTEGER;
ALTER TABLE layers ADD COLUMN tree_size INTEGER;
CREATE INDEX layers_by_time ON layers (updated_at, digest);
CREATE INDEX layers_by_state_and_time ON layers (state, updated_at, digest);
CREATE INDEX layers_by_outcome ON layers (state, retryable, announced_at);
CREATE TABLE pause (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    since        REAL NOT NULL,
    reason       TEXT NOT NULL
) STRICT;
PRAGMA user_version = 2;
COMMIT;
"""

_NOTES: Final = """
BEGIN IMMEDIATE;
ALTER TABLE layers ADD COLUMN notes TEXT;
PRAGMA user_version = 3;
COMMIT;
"""

_ELSEWHERE: Final = """
BEGIN IMMEDIATE;
ALTER TABLE layers ADD COLUMN elsewhere INTEGER NOT NULL DEFAULT 0;
UPDATE layers SET elsewhere = 1
    WHERE state = 'failed' AND NOT retryable AND reason LIKE 'the layer is for repository %';
CREATE INDEX layers_elsewhere ON layers (state, retryable) WHERE elsewhere;
PRAGMA user_version = 4;
COMMIT;
"""

_IMAGES: Final = """
BEGIN IMMEDIATE;
ALTER TABLE layers ADD COLUMN source TEXT NOT NULL DEFAULT 'bucket' CHECK (source IN ('bucket', 'registry'));
ALTER TABLE layers ADD COLUMN named_last REAL;
CREATE INDEX layers_unnamed ON layers (named_last) WHERE named_last IS NOT NULL;
CREATE TABLE images (
    name         TEXT PRIMARY KEY,
    registry     TEXT NOT NULL,
    ask          INTEGER NOT NULL DEFAULT 1,
    again        INTEGER NOT NULL DEFAULT 0,
    reference    TEXT NOT NULL,
    asked        TEXT CHECK (length(asked) = 64),
    digest       TEXT CHECK (length(digest) = 64),
    published    TEXT CHECK (length(published) = 64),
    platforms    TEXT NOT NULL,
    project      TEXT,
    priority     INTEGER NOT NULL,
    verified     TEXT,
    keep         REAL,
    state        TEXT NOT NULL
                 CHECK (state IN ('asked', 'resolving', 'fetching', 'ready', 'publishing', 'published', 'failed',
                                  'removing', 'removed')),
    attempts     INTEGER NOT NULL DEFAULT 0,
    share        INTEGER CHECK (share > 0),
    reason       TEXT,
    retryable    INTEGER NOT NULL DEFAULT 0,
    due          REAL NOT NULL DEFAULT 0,
    revision     INTEGER,
    bytes_known  INTEGER,
    bytes_missing INTEGER,
    resolving    REAL,
    fetching     REAL,
    publishing   REAL,
    asked_at     REAL NOT NULL,
    checked_at   REAL,
    published_at REAL,
    removed_at   REAL,
    updated_at   REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX images_by_turn ON images (state, priority DESC, asked_at);
CREATE INDEX images_by_outcome ON images (state, retryable, asked_at);
CREATE TABLE image_versions (
    name         TEXT NOT NULL,
    digest       TEXT NOT NULL CHECK (length(digest) = 64),
    reference    TEXT NOT NULL,
    platforms    TEXT NOT NULL,
    images       TEXT NOT NULL,
    verified     TEXT,
    published_at REAL,
    replaced_at  REAL,
    removed_at   REAL,
    keep_until   REAL,
    collected_at REAL,
    PRIMARY KEY (name, digest)
) STRICT, WITHOUT ROWID;
CREATE TABLE version_documents (
    name         TEXT NOT NULL,
    digest       TEXT NOT NULL,
    path         TEXT NOT NULL,
    content      BLOB NOT NULL,
    PRIMARY KEY (name, digest, path)
) STRICT;
CREATE TABLE version_layers (
    name         TEXT NOT NULL,
    digest       TEXT NOT NULL,
    layer        TEXT NOT NULL CHECK (length(layer) = 64),
    diff_id      TEXT NOT NULL CHECK (length(diff_id) = 64),
    size         INTEGER NOT NULL,
    position     INTEGER NOT NULL,
    missing      INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (name, digest, layer)
) STRICT, WITHOUT ROWID;
CREATE INDEX versions_by_layer ON version_layers (layer);
PRAGMA user_version = 5;
COMMIT;
"""

_UNNAMED: Final = """
BEGIN IMMEDIATE;
CREATE TABLE watch (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    seconds      REAL NOT NULL
) STRICT;
INSERT INTO watch VALUES (1, 0);
CREATE TABLE watched (
    digest       TEXT PRIMARY KEY,
    named_last   REAL NOT NULL,
    since        REAL NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 6;
COMMIT;
"""

_COLLECTING: Final = """
BEGIN IMMEDIATE;
CREATE TABLE collecting (
    digest       TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 7;
COMMIT;
"""

_OUTPUTS: Final = """
BEGIN IMMEDIATE;
ALTER TABLE images ADD COLUMN outputs TEXT;
ALTER TABLE image_versions ADD COLUMN outputs TEXT;
CREATE TABLE flats (
    config       TEXT PRIMARY KEY CHECK (length(config) = 64),
    named_last   REAL,
    report       TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE version_flats (
    name         TEXT NOT NULL,
    digest       TEXT NOT NULL,
    config       TEXT NOT NULL CHECK (length(config) = 64),
    PRIMARY KEY (name, digest, config)
) STRICT, WITHOUT ROWID;
CREATE INDEX versions_by_flat ON version_flats (config);
CREATE TABLE watched_flats (
    config       TEXT PRIMARY KEY,
    named_last   REAL NOT NULL,
    since        REAL NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 8;
COMMIT;
"""

STEPS: Final = (_LAYERS, _SIZES_AND_PAUSE, _NOTES, _ELSEWHERE, _IMAGES, _UNNAMED, _COLLECTING, _OUTPUTS)
"""What makes version N + 1 of version N."""
