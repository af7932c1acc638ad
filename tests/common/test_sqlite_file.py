"""A change of several statements is made whole or not at all, also where whoever makes it is cancelled."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import aiosqlite
import pytest

from services.common.sqlite_file import connected, one_change


async def _change(connection: aiosqlite.Connection, *statements: str) -> None:
    async def run(statement: str, /, **parameters: object) -> list[sqlite3.Row]:
        return list(await connection.execute_fetchall(statement, parameters))

    async with one_change(connection, run):
        for statement in statements:
            await run(statement)


async def _rows(connection: aiosqlite.Connection) -> list[int]:
    return [x for (x,) in await connection.execute_fetchall("SELECT x FROM t ORDER BY x")]


async def test_a_change_is_whole_or_not_at_all(tmp_path: Path) -> None:
    async with connected(tmp_path / "file", synchronous="NORMAL") as connection:
        await connection.execute_fetchall("CREATE TABLE t (x INTEGER)")
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await _change(connection, "INSERT INTO t VALUES (1)", "INSERT INTO missing VALUES (1)")
        assert await _rows(connection) == []
        for trips in range(8):
            task = asyncio.create_task(_change(connection, "INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (3)"))
            for _ in range(trips):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            assert not connection.in_transaction
            assert len(await _rows(connection)) in (0, 2)
            await connection.execute_fetchall("DELETE FROM t")
        await _change(connection, "INSERT INTO t VALUES (4)")
    async with connected(tmp_path / "file", synchronous="FULL") as connection:
        assert await _rows(connection) == [4]


async def test_a_file_that_somebody_changes_meanwhile_is_opened_when_that_has_ended(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "file", isolation_level=None)) as other:
        other.execute("CREATE TABLE t (x INTEGER)")
        other.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().call_later(0.3, other.execute, "COMMIT")
        async with connected(tmp_path / "file", synchronous="NORMAL") as connection:
            assert await _rows(connection) == []
