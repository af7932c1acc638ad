"""An SQLite file with tables of known versions, used from asynchronous code.

Changes are atomic and in order, whatever is cancelled or killed around them, and the end of this process takes none
back. A loss of power may take the last ones back: for records that are found out again.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal, Protocol, Self

import aiosqlite

from services.common.errors import SuiteError
from services.common.threads import to_end

__all__ = ["Run", "SqliteFile", "SqliteFileError", "connected", "one_change"]


class SqliteFileError(SuiteError):
    """A file of records cannot be opened, or failed."""


class Run(Protocol):
    """Runs a statement of a transaction."""

    def __call__(self, statement: str, /, **parameters: object) -> Awaitable[list[sqlite3.Row]]:
        """Return its rows."""


@asynccontextmanager
async def connected(path: Path, *, synchronous: Literal["FULL", "NORMAL"]) -> AsyncIterator[aiosqlite.Connection]:
    """Open a file in autocommit mode, with a write-ahead log.

    Parameters
    ----------
    synchronous
        Whether a change is on the disk when it returns (`FULL`), or a loss of power may take the last ones back.

    Raises
    ------
    sqlite3.Error
        It cannot be opened.
    """
    connection = aiosqlite.connect(path, isolation_level=None, timeout=30)
    try:
        # Whoever is cancelled while the connection's thread opens the file would leave it open.
        await to_end(connection)
        connection.row_factory = sqlite3.Row
        await connection.execute_fetchall("PRAGMA journal_mode = WAL")
        await connection.execute_fetchall(f"PRAGMA synchronous = {synchronous}")
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def one_change(connection: aiosqlite.Connection, run: Run) -> AsyncIterator[None]:
    """Make one change of the statements that a connection, which nobody else uses meanwhile, runs: all or none.

    Parameters
    ----------
    run
        Runs a statement on the connection, raising what its users expect.
    """
    try:
        # A cancelled caller leaves its statement to the connection's thread, and the end comes after it.
        await to_end(run("BEGIN IMMEDIATE"))
        yield
        await to_end(run("COMMIT"))
    except BaseException:
        if connection.in_transaction:
            await to_end(run("ROLLBACK"))
        raise


class SqliteFile:
    """The file, open as long as the context is.

    Parameters
    ----------
    path
        It and its directory are made where they do not exist.
    steps
        What makes version N + 1 of the tables of version N: each is one transaction that sets `user_version`.
    remedy
        What to do with a file that a newer program wrote, for the error.
    """

    def __init__(self, path: Path, *, steps: Sequence[str], remedy: str) -> None:
        self._path = path
        self._steps = steps
        self._remedy = remedy
        self._stack = AsyncExitStack()
        self._turn = asyncio.Lock()
        self._connection: aiosqlite.Connection

    async def __aenter__(self) -> Self:
        """Open it, and make its tables those of this version.

        Raises
        ------
        SqliteFileError
            The file is none of these, was written by a newer program, or cannot be opened.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            await self._open()
        except BaseException as error:
            await self._stack.aclose()
            if isinstance(error, sqlite3.Error | OSError):
                raise SqliteFileError(f"{self._path} cannot be opened: {error}") from error
            raise
        return self

    async def __aexit__(self, *_failure: object) -> None:
        await self._stack.aclose()

    async def _open(self) -> None:
        self._connection = await self._stack.enter_async_context(connected(self._path, synchronous="NORMAL"))
        ((version,),) = await self._connection.execute_fetchall("PRAGMA user_version")
        if version > len(self._steps):
            raise SqliteFileError(
                f"{self._path} has version {version}, this program reads up to {len(self._steps)}: {self._remedy}"
            )
        for step in self._steps[version:]:
            await self._connection.executescript(step)

    async def run(self, statement: str, /, **parameters: object) -> list[sqlite3.Row]:
        """Run one statement, and return its rows.

        Raises
        ------
        SqliteFileError
            It failed.
        """
        async with self._turn:
            # One trip to the connection's thread: a cancelled caller never leaves a statement half done.
            return await self._run(statement, **parameters)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Run]:
        """Run several statements as one change: all or none.

        Raises
        ------
        SqliteFileError
            It failed.
        """
        async with self._turn, one_change(self._connection, self._run):
            yield self._run

    async def _run(self, statement: str, /, **parameters: object) -> list[sqlite3.Row]:
        try:
            return list(await self._connection.execute_fetchall(statement, parameters))
        except sqlite3.Error as error:
            raise SqliteFileError(f"{self._path} failed: {error}") from error
