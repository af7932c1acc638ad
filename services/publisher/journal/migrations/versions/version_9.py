"""Version 9: the eighth of SQLite, with an index of what is to be worked on; and the first on PostgreSQL."""

import itertools
from typing import Final

from alembic import op

from services.publisher.journal.migrations.former import STEPS

__all__ = ["down_revision", "oldest", "revision", "upgrade"]

revision = "9"
down_revision = None
oldest = 9

_SQLITE: Final = (
    "DROP INDEX layers_elsewhere",
    "CREATE INDEX layers_elsewhere ON layers (state, retryable) WHERE elsewhere <> 0",
    """
    CREATE INDEX layers_waiting ON layers (announced_at, digest, due)
        WHERE CASE state WHEN 'announced' THEN 1 WHEN 'failed' THEN retryable ELSE 0 END <> 0
    """,
)
_POSTGRESQL: Final = (
    """
    CREATE TABLE layers (
        digest TEXT COLLATE "C" NOT NULL CHECK (length(digest) = 64),
        state TEXT COLLATE "C" NOT NULL
            CHECK (state IN ('announced', 'fetching', 'verified', 'publishing', 'published', 'failed')),
        attempts BIGINT DEFAULT '0' NOT NULL,
        share BIGINT CHECK (share > 0),
        reason TEXT,
        retryable BIGINT DEFAULT '0' NOT NULL,
        due DOUBLE PRECISION DEFAULT '0' NOT NULL,
        revision BIGINT,
        announced_at DOUBLE PRECISION NOT NULL,
        updated_at DOUBLE PRECISION NOT NULL,
        archive_size BIGINT,
        tree_size BIGINT,
        notes TEXT,
        elsewhere BIGINT DEFAULT '0' NOT NULL,
        source TEXT COLLATE "C" DEFAULT 'bucket' NOT NULL CHECK (source IN ('bucket', 'registry')),
        named_last DOUBLE PRECISION,
        PRIMARY KEY (digest)
    )
    """,
    """
    CREATE TABLE transactions (
        token TEXT COLLATE "C" NOT NULL,
        process TEXT,
        PRIMARY KEY (token)
    )
    """,
    """
    CREATE TABLE pause (
        id BIGINT NOT NULL CHECK (id = 1),
        since DOUBLE PRECISION NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE images (
        name TEXT COLLATE "C" NOT NULL,
        registry TEXT COLLATE "C" NOT NULL,
        ask BIGINT DEFAULT '1' NOT NULL,
        again BIGINT DEFAULT '0' NOT NULL,
        reference TEXT NOT NULL,
        asked TEXT COLLATE "C" CHECK (length(asked) = 64),
        digest TEXT COLLATE "C" CHECK (length(digest) = 64),
        published TEXT COLLATE "C" CHECK (length(published) = 64),
        platforms TEXT NOT NULL,
        project TEXT,
        priority BIGINT NOT NULL,
        verified TEXT,
        keep DOUBLE PRECISION,
        state TEXT COLLATE "C" NOT NULL
            CHECK (state IN ('asked', 'resolving', 'fetching', 'ready', 'publishing',
                             'published', 'failed', 'removing', 'removed')),
        attempts BIGINT DEFAULT '0' NOT NULL,
        share BIGINT CHECK (share > 0),
        reason TEXT,
        retryable BIGINT DEFAULT '0' NOT NULL,
        due DOUBLE PRECISION DEFAULT '0' NOT NULL,
        revision BIGINT,
        bytes_known BIGINT,
        bytes_missing BIGINT,
        resolving DOUBLE PRECISION,
        fetching DOUBLE PRECISION,
        publishing DOUBLE PRECISION,
        asked_at DOUBLE PRECISION NOT NULL,
        checked_at DOUBLE PRECISION,
        published_at DOUBLE PRECISION,
        removed_at DOUBLE PRECISION,
        updated_at DOUBLE PRECISION NOT NULL,
        outputs TEXT,
        PRIMARY KEY (name)
    )
    """,
    """
    CREATE TABLE image_versions (
        name TEXT COLLATE "C" NOT NULL,
        digest TEXT COLLATE "C" NOT NULL CHECK (length(digest) = 64),
        reference TEXT NOT NULL,
        platforms TEXT NOT NULL,
        images TEXT NOT NULL,
        verified TEXT,
        published_at DOUBLE PRECISION,
        replaced_at DOUBLE PRECISION,
        removed_at DOUBLE PRECISION,
        keep_until DOUBLE PRECISION,
        collected_at DOUBLE PRECISION,
        outputs TEXT,
        PRIMARY KEY (name, digest)
    )
    """,
    """
    CREATE TABLE version_documents (
        name TEXT COLLATE "C" NOT NULL,
        digest TEXT COLLATE "C" NOT NULL,
        path TEXT COLLATE "C" NOT NULL,
        content BYTEA NOT NULL,
        PRIMARY KEY (name, digest, path)
    )
    """,
    """
    CREATE TABLE version_layers (
        name TEXT COLLATE "C" NOT NULL,
        digest TEXT COLLATE "C" NOT NULL,
        layer TEXT COLLATE "C" NOT NULL CHECK (length(layer) = 64),
        diff_id TEXT COLLATE "C" NOT NULL CHECK (length(diff_id) = 64),
        size BIGINT NOT NULL,
        position BIGINT NOT NULL,
        missing BIGINT DEFAULT '0' NOT NULL,
        PRIMARY KEY (name, digest, layer)
    )
    """,
    """
    CREATE TABLE watch (
        id BIGINT NOT NULL CHECK (id = 1),
        seconds DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE watched (
        digest TEXT COLLATE "C" NOT NULL,
        named_last DOUBLE PRECISION NOT NULL,
        since DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (digest)
    )
    """,
    """
    CREATE TABLE collecting (
        digest TEXT COLLATE "C" NOT NULL,
        PRIMARY KEY (digest)
    )
    """,
    """
    CREATE TABLE flats (
        config TEXT COLLATE "C" NOT NULL CHECK (length(config) = 64),
        named_last DOUBLE PRECISION,
        report TEXT,
        PRIMARY KEY (config)
    )
    """,
    """
    CREATE TABLE version_flats (
        name TEXT COLLATE "C" NOT NULL,
        digest TEXT COLLATE "C" NOT NULL,
        config TEXT COLLATE "C" NOT NULL CHECK (length(config) = 64),
        PRIMARY KEY (name, digest, config)
    )
    """,
    """
    CREATE TABLE watched_flats (
        config TEXT COLLATE "C" NOT NULL,
        named_last DOUBLE PRECISION NOT NULL,
        since DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (config)
    )
    """,
    "CREATE INDEX layers_by_outcome ON layers (state, retryable, announced_at)",
    "CREATE INDEX layers_by_state ON layers (state, announced_at)",
    "CREATE INDEX layers_by_state_and_time ON layers (state, updated_at, digest)",
    "CREATE INDEX layers_by_time ON layers (updated_at, digest)",
    "CREATE INDEX layers_elsewhere ON layers (state, retryable) WHERE elsewhere <> 0",
    "CREATE INDEX layers_unnamed ON layers (named_last) WHERE named_last IS NOT NULL",
    """
    CREATE INDEX layers_waiting ON layers (announced_at, digest, due)
        WHERE CASE state WHEN 'announced' THEN 1 WHEN 'failed' THEN retryable ELSE 0 END <> 0
    """,
    "CREATE INDEX images_by_outcome ON images (state, retryable, asked_at)",
    "CREATE INDEX images_by_turn ON images (state, priority DESC, asked_at)",
    "CREATE INDEX versions_by_layer ON version_layers (layer)",
    "CREATE INDEX versions_by_flat ON version_flats (config)",
    "INSERT INTO watch VALUES (1, 0)",
)


def upgrade() -> None:
    """Make the tables."""
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        statements = [*itertools.chain.from_iterable(map(_statements, STEPS[version:])), *_SQLITE]
    else:
        statements = [*_POSTGRESQL]
    for statement in statements:
        connection.exec_driver_sql(statement)


def _statements(step: str) -> list[str]:
    """Return what a step does between the limits of its transaction: this one is a single transaction."""
    statements = [statement.strip() for statement in step.split(";\n")]
    return [statement for statement in statements if statement not in ("", "BEGIN IMMEDIATE", "COMMIT")]
