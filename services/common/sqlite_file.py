"""SQLite files, used from asynchronous code: changes are atomic, whatever is cancelled or killed around them."""

import sqlite3
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, Protocol

import aiosqlite

from services.common.threads import to_end

__all__ = ["Run", "connected", "one_change"]


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
