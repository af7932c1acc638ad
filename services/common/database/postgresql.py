"""What is done on connections to PostgreSQL, whoever has them."""

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, tuple_row
from sqlalchemy import Engine, NullPool, create_engine
from sqlalchemy.dialects.postgresql.psycopg import dialect

from services.common.database.columns import kept
from services.common.database.interface import Row, Statement, Statements

__all__ = ["PostgresqlStatements", "blocking_engine", "has_version", "plain", "set_parameters"]


class PostgresqlStatements:
    """Statements, each written once, run on any connection."""

    def __init__(self) -> None:
        self._statements = Statements(dialect())  # type: ignore[no-untyped-call]  # SQLAlchemy's own

    async def run(
        self, connection: AsyncConnection[DictRow], statement: Statement, parameters: dict[str, object]
    ) -> list[Row]:
        """Run a statement.

        Raises
        ------
        psycopg.Error
            It failed.
        """
        text, values = self._statements.write(statement, parameters)
        cursor = await connection.execute(text.encode(), {name: plain(value) for name, value in values.items()})
        return [] if cursor.description is None else [*await cursor.fetchall()]


async def set_parameters(connection: AsyncConnection[Any], parameters: Mapping[str, str]) -> None:
    """Set parameters of a session, by their names; raises `psycopg.Error`."""
    calls = ", ".join(["set_config(%s, %s, false)"] * len(parameters))
    given = [part for parameter in parameters.items() for part in parameter]
    await connection.execute(f"SELECT {calls}".encode(), given)


async def has_version(connection: AsyncConnection[Any], version: int) -> bool:
    """Whether the tables are of a version, by what Alembic has written down; raises `psycopg.Error`."""
    cursor = connection.cursor(row_factory=tuple_row)
    await cursor.execute("SELECT to_regclass('alembic_version')")
    if await cursor.fetchone() == (None,):
        return False
    await cursor.execute("SELECT version_num FROM alembic_version")
    return await cursor.fetchone() == (str(version),)


def blocking_engine(parameters: Mapping[str, Any]) -> Engine:
    """Return what makes connections as Alembic takes them, each when it is asked for.

    Parameters
    ----------
    parameters
        What they are made with.
    """
    return create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(**parameters), poolclass=NullPool)


def plain(value: object) -> object:
    """Return a value as the driver, which knows no kinds of texts but one, and the server take it."""
    return kept(str(value)) if isinstance(value, str) else value
