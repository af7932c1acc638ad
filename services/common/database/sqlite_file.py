"""SQLite files, used from asynchronous code: changes are atomic, whatever is cancelled or killed around them."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, Literal

import aiosqlite
from sqlalchemy import Connection, NullPool, create_engine, event
from sqlalchemy.dialects.sqlite import dialect

from services.common.database.interface import Row, Run, Statement, Statements
from services.common.threads import to_end

__all__ = ["SqliteConnection", "changing", "connected", "statements"]

_PATIENCE: Final = 30
"""Seconds that anything waits for whoever has the file locked."""
_PAUSE: Final = 0.02
"""Seconds between two attempts at what SQLite does not wait with itself."""


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
    connection = aiosqlite.connect(path, isolation_level=None, timeout=_PATIENCE)
    try:
        # Whoever is cancelled while the connection's thread opens the file would leave it open.
        await to_end(connection)
        connection.row_factory = sqlite3.Row
        await _write_ahead(connection)
        await connection.execute_fetchall(f"PRAGMA synchronous = {synchronous}")
        yield connection
    finally:
        await connection.close()


async def _write_ahead(connection: aiosqlite.Connection) -> None:
    """Have a write-ahead log; while somebody else changes the file, which has none yet, SQLite refuses that at once."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            await connection.execute_fetchall("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            await asyncio.sleep(_PAUSE)
        else:
            return


@contextmanager
def changing(path: Path) -> Iterator[Connection]:
    """Connect to a file for one transaction, definitions of tables included (blocking).

    Raises
    ------
    sqlite3.Error, DBAPIError
        It cannot be opened or changed.
    """
    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE), poolclass=NullPool
    )
    # The driver begins no transaction of its own, so that all that follows is one.
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.begin() as connection:
        yield connection


def statements() -> Statements:
    """Return what writes statements for files."""
    return Statements(dialect(paramstyle="named"))


class SqliteConnection:
    """A connection that runs statements.

    Parameters
    ----------
    connection
        From `connected`.
    written
        From `statements`; connections may share it.
    failed
        Makes what is raised of an error.
    """

    def __init__(
        self,
        connection: aiosqlite.Connection,
        *,
        written: Statements,
        failed: Callable[[sqlite3.Error], Exception],
    ) -> None:
        self._connection = connection
        self._written = written
        self._failed = failed

    async def version(self) -> int:
        """Return the file's `user_version`; raises `sqlite3.Error`."""
        ((version,),) = await self._connection.execute_fetchall("PRAGMA user_version")
        return int(version)

    async def run(self, statement: Statement, /, **parameters: object) -> list[Row]:
        """Run a statement."""
        return await self._fetch(*self._written.write(statement, parameters))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Run]:
        """Make one change of several statements: all or none. Nobody else may use the connection meanwhile."""
        try:
            # A cancelled caller leaves its statement to the connection's thread, and the end comes after it.
            await to_end(self._fetch("BEGIN IMMEDIATE", {}))
            yield self.run
            await to_end(self._fetch("COMMIT", {}))
        except BaseException:
            if self._connection.in_transaction:
                await to_end(self._fetch("ROLLBACK", {}))
            raise

    async def _fetch(self, statement: str, parameters: dict[str, object]) -> list[Row]:
        # One trip to the connection's thread: a cancelled caller never leaves a statement half done.
        try:
            return [*await self._connection.execute_fetchall(statement, parameters)]
        except sqlite3.Error as error:
            raise self._failed(error) from error
