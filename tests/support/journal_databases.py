"""Fixtures of databases for journals: SQLite files, and one PostgreSQL server, started where a test asks for it."""

import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from harness.postgresql import PostgresqlServer
from services.common.database.interface import Database
from services.publisher.journal.postgresql import PostgresqlDatabase
from services.publisher.journal.sqlite import SqliteDatabase
from services.publisher.journal.tables import metadata

__all__ = ["Open", "empty_database", "new_database", "new_journal", "one_database", "postgresql"]

Open = Callable[[], Database]
"""Gives the same database each time, not opened yet."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgresql(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PostgresqlServer]:
    """The server."""
    server = PostgresqlServer(tmp_path_factory.mktemp("postgresql") / "log")
    try:
        await server.start()
        yield server
    finally:
        await server.kill()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def one_database(postgresql: PostgresqlServer) -> str:
    """A database that has the journal's tables, for one test after the other; its URL."""
    url = await postgresql.create(f"journal_{uuid.uuid4().hex}")
    async with PostgresqlDatabase(url, password=postgresql.password):
        return url


@pytest.fixture
def empty_database(postgresql: PostgresqlServer, one_database: str) -> str:
    """The same, with nothing in them."""
    emptied = [f"DELETE FROM {table};" for table in metadata.tables if table != "watch"]  # noqa: S608 - constants
    with psycopg.connect(one_database, password=postgresql.password.get_secret_value()) as connection:
        connection.execute("".join([*emptied, "UPDATE watch SET seconds = 0"]).encode())
    return one_database


@pytest.fixture
async def new_database(postgresql: PostgresqlServer) -> str:
    """A database that has nothing yet; its URL."""
    return await postgresql.create(f"new_{uuid.uuid4().hex}")


@pytest.fixture(params=["sqlite", "postgresql"])
def new_journal(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """An empty database of each kind in turn."""
    if request.param == "sqlite":
        return lambda: SqliteDatabase(tmp_path / "state" / "journal.sqlite")
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    url: str = request.getfixturevalue("empty_database")
    return lambda: PostgresqlDatabase(url, password=server.password)
