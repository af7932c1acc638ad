"""Fixtures of databases for what converters remember: SQLite files, and one database of the PostgreSQL server's."""

import uuid
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from harness.postgresql import PostgresqlServer
from services.converter.hints.tables import metadata as hint_tables
from services.converter.state.database import StateDatabase
from services.converter.state.postgresql import PostgresqlState
from services.converter.state.sqlite import SqliteState
from services.converter.state.tables import metadata as state_tables

__all__ = ["OpenState", "empty_state", "new_state", "shared_state"]

OpenState = Callable[[], StateDatabase]
"""Gives the same database each time, not opened yet."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_state(postgresql: PostgresqlServer) -> str:
    """A database that has the state's tables, for one test after the other; its URL."""
    url = await postgresql.create(f"state_{uuid.uuid4().hex}")
    async with PostgresqlState(url, password=postgresql.password):
        return url


@pytest.fixture
def empty_state(postgresql: PostgresqlServer, shared_state: str) -> str:
    """The same without anything in its tables."""
    tables = ", ".join([*state_tables.tables, *hint_tables.tables])
    with psycopg.connect(shared_state, password=postgresql.password.get_secret_value()) as connection:
        connection.execute(f"TRUNCATE {tables}".encode())
    return shared_state


@pytest.fixture(params=["sqlite", "postgresql"])
def new_state(request: pytest.FixtureRequest, tmp_path: Path) -> OpenState:
    """An empty database of each kind in turn."""
    if request.param == "sqlite":
        return lambda: SqliteState(tmp_path / "state" / "state.sqlite")
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    url: str = request.getfixturevalue("empty_state")
    return lambda: PostgresqlState(url, password=server.password)
