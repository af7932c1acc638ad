"""The journal in an SQLite file, which is written in two ways.

Every statement is one change in autocommit mode, so it is atomic, whatever is cancelled or killed around it, and the
end of this process takes none back. What takes several is one transaction, on a connection of its own. A loss of power
may take the last changes back, unless they have been brought to the disk. That takes milliseconds, so it is done only
where something would be lost. Whatever has been brought there takes everything before it along: the file's log (WAL) is
written from one end.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from services.common.database.interface import Row, Run, Statement
from services.common.database.sqlite_file import SqliteConnection, connected, statements
from services.common.threads import to_end
from services.publisher.errors import JournalError
from services.publisher.journal.version import VERSION

__all__ = ["SqliteDatabase"]


class SqliteDatabase:
    """The file, open.

    Parameters
    ----------
    path
        It and its directory are made where they do not exist.
    """

    shared = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = AsyncExitStack()
        self._lasting: SqliteConnection
        self._passing: SqliteConnection
        self._together: SqliteConnection
        self._turn = asyncio.Lock()
        self._statements = statements()

    async def __aenter__(self) -> Self:
        """Open it, and make its tables those of this version.

        Raises
        ------
        JournalError
            The file is no journal, was written by a newer publisher, or cannot be opened.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._lasting = await self._connect("FULL")
            if await self._lasting.version() != VERSION:
                await to_end(asyncio.to_thread(self._migrate))
            self._passing = await self._connect("NORMAL")
            self._together = await self._connect("FULL")
        except BaseException as error:
            await self._stack.aclose()
            if not isinstance(error, sqlite3.Error):
                raise
            raise JournalError(f"the journal {self._path} cannot be opened: {error}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self._stack.aclose()

    async def _connect(self, synchronous: Literal["FULL", "NORMAL"]) -> SqliteConnection:
        connection = await self._stack.enter_async_context(connected(self._path, synchronous=synchronous))
        return SqliteConnection(connection, written=self._statements, failed=self._failed)

    def _failed(self, error: sqlite3.Error) -> JournalError:
        return JournalError(f"the journal {self._path} failed: {error}")

    def _migrate(self) -> None:
        from services.publisher.journal.upgrade import upgrade_sqlite  # noqa: PLC0415 - Alembic, which few starts need

        upgrade_sqlite(self._path, journal=f"the journal {self._path}")

    async def run(self, statement: Statement, /, **parameters: object) -> Sequence[Row]:
        """Run a statement; what it changes is on the disk when this returns. `:now` is the present time.

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
        """Run a statement on a connection whose others are short; else as `run_passing`."""
        return await self.run_passing(statement, **parameters)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Run]:
        """Run several statements as one change, which is on the disk at the end of the context; all or none.

        Raises
        ------
        JournalError
            It failed.
        """
        async with self._turn, self._together.transaction():

            async def run(statement: Statement, /, **parameters: object) -> Sequence[Row]:
                return await self._run(self._together, statement, parameters)

            yield run

    async def _run(
        self, connection: SqliteConnection, statement: Statement, parameters: dict[str, object]
    ) -> Sequence[Row]:
        return await connection.run(statement, **{"now": time.time(), **parameters})
