"""Files of records: their versions, and changes that are whole."""

import asyncio
from pathlib import Path

import pytest

from services.common.sqlite_file import SqliteFile, SqliteFileError
from tests.support.sqlite_files import cancel_opening, open_below

_STEPS = (
    "BEGIN IMMEDIATE; CREATE TABLE t (x INTEGER); PRAGMA user_version = 1; COMMIT;",
    "BEGIN IMMEDIATE; ALTER TABLE t ADD COLUMN y INTEGER; PRAGMA user_version = 2; COMMIT;",
)


def _file(path: Path, steps: tuple[str, ...] = _STEPS) -> SqliteFile:
    return SqliteFile(path, steps=steps, remedy="move it away")


async def test_an_earlier_file_is_brought_to_the_present_version(tmp_path: Path) -> None:
    async with _file(tmp_path / "new" / "file", _STEPS[:1]) as file:
        await file.run("INSERT INTO t (x) VALUES (1)")
    async with _file(tmp_path / "new" / "file") as file:
        assert [tuple(row) for row in await file.run("SELECT x, y FROM t")] == [(1, None)]
    with pytest.raises(SqliteFileError, match="has version 2, this program reads up to 1: move it away"):
        async with _file(tmp_path / "new" / "file", _STEPS[:1]):
            pass


async def test_what_is_no_such_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("something else" * 100)
    with pytest.raises(SqliteFileError, match="cannot be opened: file is not a database"):
        async with _file(tmp_path / "file"):
            pass


@pytest.mark.parametrize("step", ["connect", "PRAGMA user_version", "CREATE TABLE"])
async def test_an_opening_that_is_cancelled_leaves_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    await cancel_opening(_file(tmp_path / "file").__aenter__, at=step, monkeypatch=monkeypatch)
    assert open_below(tmp_path) == []


async def _insert(file: SqliteFile, *tables: str) -> None:
    async with file.transaction() as run:
        for table in tables:
            await run(f"INSERT INTO {table} (x) VALUES (1)")  # noqa: S608 - of the test


async def test_a_transaction_is_whole_or_not_at_all(tmp_path: Path) -> None:
    async with _file(tmp_path / "file") as file:
        with pytest.raises(SqliteFileError, match="no such table"):
            await _insert(file, "t", "missing")
        entered = asyncio.Event()

        async def cancelled() -> None:
            async with file.transaction() as run:
                await run("INSERT INTO t (x) VALUES (2)")
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(cancelled())
        await entered.wait()
        waiting = asyncio.create_task(file.run("SELECT count(*) FROM t"))
        task.cancel()
        assert [tuple(row) for row in await waiting] == [(0,)]
        async with file.transaction() as run:
            await run("INSERT INTO t (x) VALUES (:x)", x=3)
        assert [tuple(row) for row in await file.run("SELECT x FROM t")] == [(3,)]
