"""The journal in a PostgreSQL database.

What must last is committed synchronously, what is found out again after a loss of power is not (`synchronous_commit`),
each on connections of its own. A transaction waits for those of other publishers, as it does in SQLite, and locks the
rows that it decides by. A statement that another one has blocked for good is tried once more.

A connection is lost when the server is started anew. What it was used for has failed then, and the next statement has
another connection.

The driver is psycopg, which Alembic can use as well. asyncpg was measured to take half of its processor time for a
statement, 0.15 ms instead of 0.26, where the server takes 0.25: a millisecond of what a layer takes.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg import AsyncConnection
from psycopg.errors import DeadlockDetected, SerializationFailure
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from pydantic import SecretStr
from sqlalchemy.dialects.postgresql.psycopg import dialect

from services.common.database import connecting
from services.common.database.connecting import first_line
from services.common.database.interface import Row, Run, Statement, Statements
from services.common.threads import to_end
from services.publisher.errors import JournalError
from services.publisher.journal.occupancy import MAY_WORK, OCCUPY
from services.publisher.journal.publishers import LEASE
from services.publisher.journal.version import VERSION

__all__ = ["PostgresqlDatabase", "connection_parameters", "first_line", "plain", "shown_name"]

_Connection = AsyncConnection[DictRow]

_TURN: Final = 0x7468696E6A6F7572
"""What publishers lock by agreement: "thinjour", in ASCII."""
_LOCK: Final = f"SELECT pg_advisory_xact_lock({_TURN})"
_VERSION: Final = "SELECT version_num FROM alembic_version"
_ATTEMPTS: Final = 5
"""How often a statement is tried that others block."""
_CONNECTIONS: Final = 4
"""Most connections of each kind."""
_PATIENCE: Final = 30.0
"""Seconds for which a statement waits for a connection, while the server is away for instance."""
_IDLE: Final = 2 / 3
"""Part of the lease for which a publisher may hang in the middle of a transaction, which keeps others waiting: they can
take over what it does as soon as its lease has run out."""


def connection_parameters(url: str, password: SecretStr | None) -> dict[str, Any]:
    """Return what a connection is made with; parameters in the URL win."""
    return connecting.connection_parameters(url, password, program="publisher")


def shown_name(url: str) -> str:
    """Return what a journal is called in errors."""
    return f"the journal {connecting.shown_url(url)}"


class PostgresqlDatabase:
    """The database, open.

    Parameters
    ----------
    url
        As libpq takes it, `postgresql://USER@HOST[:PORT]/DATABASE[?...]`, without a password.
    password
        None where the server wants none, or a file of libpq's has it.
    lease
        Seconds after which others take over what a publisher does that hangs.
    """

    shared = True

    def __init__(self, url: str, *, password: SecretStr | None, lease: float = LEASE) -> None:
        self._name = shown_name(url)
        self._parameters = connection_parameters(url, password)
        self._limits = {
            "statement_timeout": "60s",
            "idle_in_transaction_session_timeout": f"{_IDLE * lease * 1000:.0f}ms",
        }
        self._stack = AsyncExitStack()
        self._lasting: AsyncConnectionPool[_Connection]
        self._passing: AsyncConnectionPool[_Connection]
        self._ahead: AsyncConnectionPool[_Connection]
        self._statements = Statements(dialect())  # type: ignore[no-untyped-call]  # SQLAlchemy's own

    async def __aenter__(self) -> Self:
        """Open it, and make its tables those of this version.

        Raises
        ------
        JournalError
            It cannot be reached or used, or a newer publisher has written it.
        """
        try:
            await self._prepare()
            self._lasting = await self._stack.enter_async_context(self._pool(synchronous_commit="on"))
            self._passing = await self._stack.enter_async_context(self._pool(synchronous_commit="off"))
            self._ahead = await self._stack.enter_async_context(self._pool(synchronous_commit="off", connections=1))
        except psycopg.Error as error:
            await self._stack.aclose()
            raise JournalError(f"{self._name} cannot be opened: {first_line(error)}") from error
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self._stack.aclose()

    def _pool(self, *, synchronous_commit: str, connections: int = _CONNECTIONS) -> AsyncConnectionPool[_Connection]:
        async def configure(connection: _Connection) -> None:
            await connection.execute(OCCUPY)
            await self._demand_access(connection)
            for name, value in {**self._limits, "synchronous_commit": synchronous_commit}.items():
                await connection.execute("SELECT set_config(%s, %s, false)", (name, value))

        return AsyncConnectionPool(
            connection_class=_Connection,
            kwargs={**self._parameters, "autocommit": True, "row_factory": dict_row},
            min_size=1,
            max_size=connections,
            configure=configure,
            timeout=_PATIENCE,
            reconnect_timeout=_PATIENCE,
            open=False,
        )

    async def _demand_access(self, connection: _Connection) -> None:
        allowed = await (await connection.execute(MAY_WORK)).fetchone()
        if allowed is None or not all(allowed.values()):
            raise JournalError(f"{self._name} is not for publishers of version {VERSION} any more: install the new one")

    async def _find_obstacle(self) -> None:
        """Raise what keeps connections from coming about, if it still does: a pool says only that it has none.

        Raises
        ------
        JournalError
            Publishers of this version may not work with the tables.
        psycopg.Error
            The server cannot be reached, or refuses the connection.
        """
        async with await _Connection.connect(**self._parameters, autocommit=True, row_factory=dict_row) as connection:
            await self._demand_access(connection)

    async def _prepare(self) -> None:
        async with await AsyncConnection.connect(**self._parameters, autocommit=True) as connection:
            cursor = await connection.execute("SELECT to_regclass('alembic_version')")
            if await cursor.fetchone() != (None,):
                cursor = await connection.execute(_VERSION)
                if await cursor.fetchone() == (str(VERSION),):
                    return
        await to_end(asyncio.to_thread(self._migrate))

    def _migrate(self) -> None:
        from services.publisher.journal.upgrade import upgrade_postgresql  # noqa: PLC0415 - Alembic, which few starts need

        upgrade_postgresql(self._parameters, journal=self._name)

    async def run(self, statement: Statement, /, **parameters: object) -> Sequence[Row]:
        """Run a statement; what it changes is on the disk when this returns. `now` is the present time.

        Raises
        ------
        JournalError
            It failed.
        """
        return await self._run(self._lasting, statement, parameters)

    async def run_passing(self, statement: Statement, /, **parameters: object) -> Sequence[Row]:
        """Run a statement that changes what a publisher finds out again after a loss of power; else as `run`."""
        return await self._run(self._passing, statement, parameters)

    async def run_ahead(self, statement: Statement, /, **parameters: object) -> Sequence[Row]:
        """Run a statement on a connection that nothing else uses; else as `run_passing`. One at a time."""
        return await self._run(self._ahead, statement, parameters)

    async def _run(
        self, pool: AsyncConnectionPool[_Connection], statement: Statement, parameters: dict[str, object]
    ) -> Sequence[Row]:
        async with self._failing(pool):
            for _ in range(_ATTEMPTS - 1):
                try:
                    async with pool.connection() as connection:
                        return await self._fetch(connection, statement, parameters)
                except (DeadlockDetected, SerializationFailure):
                    continue  # it has changed nothing
            async with pool.connection() as connection:
                return await self._fetch(connection, statement, parameters)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Run]:
        """Run several statements as one change, which is on the disk at the end of the context; all or none.

        Raises
        ------
        JournalError
            It failed.
        """
        async with (
            self._failing(self._lasting),
            self._lasting.connection() as connection,
            connection.transaction(),
        ):
            await connection.execute(_LOCK)

            async def run(statement: Statement, /, **parameters: object) -> Sequence[Row]:
                return await self._fetch(connection, statement, parameters)

            yield run

    async def _fetch(
        self, connection: _Connection, statement: Statement, parameters: dict[str, object]
    ) -> Sequence[Row]:
        text, values = self._statements.write(statement, {"now": time.time(), **parameters})
        cursor = await connection.execute(text.encode(), {name: plain(value) for name, value in values.items()})
        return [] if cursor.description is None else await cursor.fetchall()

    @asynccontextmanager
    async def _failing(self, pool: AsyncConnectionPool[_Connection]) -> AsyncIterator[None]:
        """Raise what the journal's users expect, and drop the connections that a failure has taken along."""
        try:
            yield
        except psycopg.Error as error:
            if isinstance(error, psycopg.OperationalError):
                await pool.check()
            if isinstance(error, PoolTimeout):
                try:
                    await self._find_obstacle()
                except psycopg.Error as obstacle:
                    error = obstacle
            raise JournalError(f"{self._name} failed: {first_line(error)}") from error


def plain(value: object) -> object:
    """Return a value as the driver and the server take it: PostgreSQL's texts hold no NUL."""
    return str(value).replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value
