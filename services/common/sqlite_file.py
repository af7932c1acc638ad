"""SQLite files, used from asynchronous code: changes are atomic, whatever is cancelled or killed around them."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal, Protocol

import aiosqlite

from services.common.threads import to_end

__all__ = ["Run", "connected", "one_change"]

_PATIENCE: Final = 30
"""Seconds that anything waits for whoever has the file locked."""
_PAUSE: Final = 0.02
"""Seconds between two attempts at what SQLite does not wait with itself."""


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
