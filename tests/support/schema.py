"""What a database's tables are, beside what statements name."""

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData

__all__ = ["differences"]


def differences(connection: Connection, tables: MetaData) -> list[tuple[Any, ...]]:
    """Return what Alembic would have to change for a database to have the tables."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    found = [one for entry in compare_metadata(context, tables) for one in _flat(entry)]
    # SQLite says of INTEGER PRIMARY KEY, which holds no NULL, that it may.
    return [one for one in found if (one[0], one[3:4]) != ("modify_nullable", ("id",))]


def _flat(entry: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401 - what Alembic found, of one column several things
    return entry if isinstance(entry, list) else [entry]
