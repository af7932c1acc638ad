"""A change of several statements is made whole or not at all, also where whoever makes it is cancelled."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import aiosqlite
import pytest
from sqlalchemy import Column, Insert, Integer, MetaData, Table, insert

from services.common.database.sqlite_file import SqliteConnection, connected, statements

_there = Table("there", MetaData(), Column("x", Integer()))
_missing = Table("missing", MetaData(), Column("x", Integer()))


async def _change(connection: aiosqlite.Connection, *changes: Insert) -> None:
    async with SqliteConnection(connection, written=statements(), failed=_failed).transaction() as run:
        for change in changes:
            await run(change)


def _failed(error: sqlite3.Error) -> Exception:
    return LookupError(f"the file failed: {error}")


async def _rows(connection: aiosqlite.Connection) -> list[int]:
    return [x for (x,) in await connection.execute_fetchall("SELECT x FROM there ORDER BY x")]


async def test_a_change_is_whole_or_not_at_all(tmp_path: Path) -> None:
    one, two, three, four = (insert(_there).values(x=number) for number in range(1, 5))
    async with connected(tmp_path / "file", synchronous="NORMAL") as connection:
        await connection.execute_fetchall("CREATE TABLE there (x INTEGER)")
        with pytest.raises(LookupError, match="the file failed: no such table"):
            await _change(connection, one, insert(_missing).values(x=1))
        assert await _rows(connection) == []
        for trips in range(8):
            task = asyncio.create_task(_change(connection, two, three))
            for _ in range(trips):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            assert not connection.in_transaction
            assert len(await _rows(connection)) in (0, 2)
            await connection.execute_fetchall("DELETE FROM there")
        await _change(connection, four)
    async with connected(tmp_path / "file", synchronous="FULL") as connection:
        assert await _rows(connection) == [4]


async def test_a_file_that_somebody_changes_meanwhile_is_opened_when_that_has_ended(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "file", isolation_level=None)) as other:
        other.execute("CREATE TABLE there (x INTEGER)")
        other.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().call_later(0.3, other.execute, "COMMIT")
        async with connected(tmp_path / "file", synchronous="NORMAL") as connection:
            assert await _rows(connection) == []
