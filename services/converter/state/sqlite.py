"""The state in an SQLite file, which is of one converter.

Every change is atomic, whatever is cancelled or killed around it, and the end of this process takes none back. A loss
of power may take the last ones back: all of it is found out again.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sqlalchemy import Connection, NullPool, create_engine, event
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.exc import DBAPIError

from services.common.database.interface import Row, Run, Statement, Statements
from services.common.sqlite_file import connected, one_change
from services.common.threads import to_end
from services.converter.errors import StateError
from services.converter.state.version import VERSION

if TYPE_CHECKING:
    import aiosqlite

__all__ = ["SqliteState"]


class SqliteState:
    """The file, open; a `StateDatabase`.

    Parameters
    ----------
    path
        It and its directory are made where they do not exist. Whoever opens it keeps other converters away.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = AsyncExitStack()
        self._one = asyncio.Lock()
        self._connection: aiosqlite.Connection
        self._statements = Statements(dialect(paramstyle="named"))

    async def __aenter__(self) -> Self:
        """Open it, and make its tables those of this version.

        Raises
        ------
        StateError
            The file is no state, was written by a newer converter, or cannot be opened.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._connection = await self._stack.enter_async_context(connected(self._path, synchronous="NORMAL"))
            ((version,),) = await self._connection.execute_fetchall("PRAGMA user_version")
            if version != VERSION:
                await to_end(asyncio.to_thread(self._migrate))
        except BaseException as error:
            await self._stack.aclose()
            if not isinstance(error, sqlite3.Error | DBAPIError | OSError):
                raise
            # What SQLAlchemy adds to the driver's own words is a statement.
            said = error.orig if isinstance(error, DBAPIError) else error
            raise StateError(f"the state {self._path} cannot be opened: {said}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self._stack.aclose()

    def _migrate(self) -> None:
        from services.converter.state.schema import migrate  # noqa: PLC0415 - Alembic, which few starts need

        engine = create_engine("sqlite://", creator=self._connect, poolclass=NullPool)
        # The driver begins no transaction of its own, so that what follows is one, definitions of tables included.
        event.listen(engine, "begin", _begin)
        with engine.begin() as connection:
            migrate(connection, state=f"the state {self._path}")

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, isolation_level=None, timeout=30)

    async def run(self, statement: Statement, /, **parameters: object) -> list[Row]:
        """Run a statement; raises `StateError`."""
        async with self._one:
            return await self._run(statement, **parameters)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Run]:
        """Run several statements as one change: all or none; raises `StateError`."""
        async with self._one, one_change(self._connection, self._control):
            yield self._run

    async def try_to_begin(self) -> bool:
        """Tell that this converter has the turn."""
        return True

    async def begin(self, stopped: asyncio.Event) -> bool:
        """Tell that this converter may work, unless somebody wants it to stop."""
        return not stopped.is_set()

    async def confirm(self) -> None:
        """Return: nobody else has the file."""

    async def hold(self) -> None:
        """Wait until cancelled."""
        await asyncio.Event().wait()

    async def _run(self, statement: Statement, /, **parameters: object) -> list[Row]:
        return [*await self._fetch(*self._statements.write(statement, parameters))]

    async def _control(self, statement: str, /, **parameters: object) -> list[sqlite3.Row]:
        return await self._fetch(statement, parameters)

    async def _fetch(self, statement: str, parameters: dict[str, object]) -> list[sqlite3.Row]:
        # One trip to the connection's thread: a cancelled caller never leaves a statement half done.
        try:
            return list(await self._connection.execute_fetchall(statement, parameters))
        except sqlite3.Error as error:
            raise StateError(f"the state {self._path} failed: {error}") from error


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
