"""What is paused is paused on the disk, and what could not be recorded is not."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from services.publisher.errors import JournalError
from services.publisher.journal.journal import Journal
from services.publisher.journal.sqlite import SqliteDatabase
from services.publisher.pipeline.gate import Gate


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal(SqliteDatabase(tmp_path / "journal.sqlite")) as journal:
        yield journal


async def test_whoever_waits_passes_when_it_is_opened(journal: Journal) -> None:
    gate = Gate(journal)
    await gate.load()
    await gate.passed()
    await gate.close("a new disk")
    assert (await journal.paused()) == gate.pause
    waiting = asyncio.create_task(gate.passed())
    await gate.close("another disk")
    assert gate.pause is not None
    assert (gate.pause.reason, gate.is_open, waiting.done()) == ("another disk", False, False)
    await gate.resume()
    await waiting
    assert await journal.paused() is None
    assert gate.is_open


async def test_a_pause_of_an_earlier_publisher_is_taken_up(journal: Journal) -> None:
    await journal.pause("a new disk")
    gate = Gate(journal)
    await gate.load()
    assert gate.pause is not None
    assert not gate.is_open


async def test_what_cannot_be_recorded_changes_nothing(journal: Journal, tmp_path: Path) -> None:
    gate = Gate(journal)
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as connection, connection:
        connection.execute("ALTER TABLE pause RENAME TO hidden")
    connection.close()
    with pytest.raises(JournalError, match="no such table: pause"):
        await gate.close("a new disk")
    assert (gate.pause, gate.is_open) == (None, True)
