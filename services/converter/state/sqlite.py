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
from typing import Self

from sqlalchemy.exc import DBAPIError

from services.common.database.errors import first_line
from services.common.database.interface import Row, Run, Statement
from services.common.database.sqlite_file import SqliteConnection, changing, connected, statements
from services.common.threads import to_end
from services.converter.errors import StateError
from services.converter.state.version import VERSION

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
        self._connection: SqliteConnection

    async def __aenter__(self) -> Self:
        """Open it, and make its tables those of this version.

        Raises
        ------
        StateError
            The file is no state, was written by a newer converter, or cannot be opened.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            connection = await self._stack.enter_async_context(connected(self._path, synchronous="NORMAL"))
            self._connection = SqliteConnection(connection, written=statements(), failed=self._failed)
            if await self._connection.version() != VERSION:
                await to_end(asyncio.to_thread(self._migrate))
        except BaseException as error:
            await self._stack.aclose()
            if not isinstance(error, sqlite3.Error | DBAPIError | OSError):
                raise
            raise StateError(f"the state {self._path} cannot be opened: {first_line(error)}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self._stack.aclose()

    def _migrate(self) -> None:
        from services.converter.state.schema import migrate  # noqa: PLC0415 - Alembic, which few starts need

        with changing(self._path) as connection:
            migrate(connection, state=f"the state {self._path}")

    def _failed(self, error: sqlite3.Error) -> StateError:
        return StateError(f"the state {self._path} failed: {error}")

    async def run(self, statement: Statement, /, **parameters: object) -> list[Row]:
        """Run a statement; raises `StateError`."""
        async with self._one:
            return await self._connection.run(statement, **parameters)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Run]:
        """Run several statements as one change: all or none; raises `StateError`."""
        async with self._one, self._connection.transaction() as run:
            yield run

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
