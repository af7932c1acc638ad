"""Version 3: the second of SQLite as it is; and the first on PostgreSQL, where hints are as well."""

import itertools
from typing import Final

from alembic import op

from services.converter.state.migrations.former import STEPS

__all__ = ["down_revision", "revision", "upgrade"]

revision = "3"
down_revision = None

_POSTGRESQL: Final = (
    """
    CREATE TABLE clock (
        id BIGINT NOT NULL CHECK (id = 1),
        boot TEXT NOT NULL,
        since_boot DOUBLE PRECISION NOT NULL,
        steady DOUBLE PRECISION NOT NULL,
        wall DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE wishes (
        key TEXT COLLATE "C" NOT NULL,
        fingerprint TEXT NOT NULL,
        due DOUBLE PRECISION NOT NULL,
        failures BIGINT DEFAULT '0' NOT NULL,
        reason TEXT,
        polled_at DOUBLE PRECISION,
        PRIMARY KEY (key)
    )
    """,
    """
    CREATE TABLE images (
        name TEXT COLLATE "C" NOT NULL,
        digest TEXT COLLATE "C" NOT NULL,
        changed_at DOUBLE PRECISION NOT NULL,
        checked_at DOUBLE PRECISION NOT NULL,
        reason TEXT,
        missing BIGINT DEFAULT '0' NOT NULL,
        missing_since DOUBLE PRECISION,
        missing_last DOUBLE PRECISION,
        emptied BIGINT DEFAULT '0' NOT NULL,
        PRIMARY KEY (name)
    )
    """,
    """
    CREATE TABLE copies (
        repository TEXT COLLATE "C" NOT NULL,
        name TEXT COLLATE "C" NOT NULL REFERENCES images (name),
        wish TEXT COLLATE "C" NOT NULL,
        source TEXT COLLATE "C" NOT NULL,
        gone_after DOUBLE PRECISION,
        dropped_after DOUBLE PRECISION,
        state TEXT COLLATE "C" NOT NULL CHECK (state IN ('wanted', 'asked', 'published', 'failed')),
        wanted TEXT COLLATE "C" NOT NULL,
        due DOUBLE PRECISION DEFAULT '0' NOT NULL,
        attempts BIGINT DEFAULT '0' NOT NULL,
        reason TEXT,
        wanted_at DOUBLE PRECISION NOT NULL,
        asked_at DOUBLE PRECISION,
        published TEXT COLLATE "C",
        published_at DOUBLE PRECISION,
        dropped DOUBLE PRECISION,
        dropped_why TEXT,
        PRIMARY KEY (repository, name)
    )
    """,
    """
    CREATE TABLE creations (
        digest TEXT COLLATE "C" NOT NULL,
        created DOUBLE PRECISION,
        PRIMARY KEY (digest)
    )
    """,
    """
    CREATE TABLE thin_images (
        reference TEXT COLLATE "C" NOT NULL,
        name TEXT COLLATE "C" NOT NULL,
        repository TEXT COLLATE "C" NOT NULL,
        layout TEXT COLLATE "C" NOT NULL,
        platforms TEXT NOT NULL,
        digest TEXT COLLATE "C" NOT NULL,
        pushed TEXT COLLATE "C",
        pushed_at DOUBLE PRECISION,
        due DOUBLE PRECISION DEFAULT '0' NOT NULL,
        attempts BIGINT DEFAULT '0' NOT NULL,
        reason TEXT,
        PRIMARY KEY (reference)
    )
    """,
    """
    CREATE TABLE pending_hints (
        registry TEXT COLLATE "C" NOT NULL,
        repository TEXT COLLATE "C" NOT NULL,
        tag TEXT COLLATE "C" NOT NULL,
        sequence BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY,
        PRIMARY KEY (registry, repository, tag),
        UNIQUE (sequence)
    )
    """,
    """
    CREATE TABLE hint_deliveries (
        number BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY,
        endpoint TEXT COLLATE "C" NOT NULL,
        identity TEXT COLLATE "C" NOT NULL,
        PRIMARY KEY (number),
        UNIQUE (endpoint, identity)
    )
    """,
    "CREATE INDEX images_missing ON images (missing) WHERE missing > 0",
    "CREATE INDEX copies_by_wish ON copies (wish)",
    "CREATE INDEX copies_by_state ON copies (state, due)",
    "CREATE INDEX copies_by_name ON copies (name)",
    "CREATE INDEX copies_dropped ON copies (dropped) WHERE dropped IS NOT NULL",
    "CREATE INDEX thin_images_by_name ON thin_images (repository, name)",
)


def upgrade() -> None:
    """Make the tables."""
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        statements = list(itertools.chain.from_iterable(map(_statements, STEPS[version:])))
    else:
        statements = [*_POSTGRESQL]
    for statement in statements:
        connection.exec_driver_sql(statement)


def _statements(step: str) -> list[str]:
    """Return what a step does between the limits of its transaction: this one is a single transaction."""
    statements = [statement.strip() for statement in step.split(";\n")]
    return [statement for statement in statements if statement not in ("", "BEGIN IMMEDIATE", "COMMIT")]
