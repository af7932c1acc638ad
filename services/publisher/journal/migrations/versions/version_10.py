"""Version 10: publishers, and what each of them has claimed."""

from typing import Final

from alembic import op

__all__ = ["down_revision", "oldest", "revision", "upgrade"]

revision = "10"
down_revision = "9"
oldest = 10  # a former publisher takes everything that is under way for its own when it starts

_LINE: Final = {"sqlite": "TEXT", "postgresql": 'TEXT COLLATE "C"'}
_NUMBER: Final = {"sqlite": "INTEGER", "postgresql": "BIGINT"}
_SECONDS: Final = {"sqlite": "REAL", "postgresql": "DOUBLE PRECISION"}
_STATEMENTS: Final = (
    """
    CREATE TABLE publishers (
        id {line} NOT NULL,
        name TEXT NOT NULL,
        started_at {seconds} NOT NULL,
        seen_at {seconds} NOT NULL,
        lease_until {seconds} NOT NULL,
        leads {number} DEFAULT '0' NOT NULL,
        left_at {seconds},
        PRIMARY KEY (id)
    )
    """,
    "ALTER TABLE layers ADD COLUMN claimed_by {line}",
    "ALTER TABLE images ADD COLUMN claimed_by {line}",
    "ALTER TABLE transactions ADD COLUMN publisher {line}",
    "CREATE INDEX layers_claimed ON layers (claimed_by) WHERE claimed_by IS NOT NULL",
    "CREATE INDEX images_claimed ON images (claimed_by) WHERE claimed_by IS NOT NULL",
)


def upgrade() -> None:
    """Add them."""
    connection = op.get_bind()
    kind = connection.dialect.name
    for statement in _STATEMENTS:
        connection.exec_driver_sql(statement.format(line=_LINE[kind], number=_NUMBER[kind], seconds=_SECONDS[kind]))
