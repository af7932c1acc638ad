"""What is announced at one moment is one change of the journal, and nobody takes the others along."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerState, Selection
from services.publisher.journal.sqlite import SqliteDatabase
from services.publisher.notification.recorder import Recorder
from tests.support.journal import numbered
from tests.support.journal_databases import Open


@pytest.fixture
async def journal(new_journal: Open) -> AsyncIterator[Journal]:
    """An empty journal, in each kind of database."""
    async with Journal(new_journal()) as journal:
        yield journal


async def _times(journal: Journal) -> dict[int, float]:
    """When each layer was announced, by its number."""
    layers = await journal.page(Selection(states=(LayerState.ANNOUNCED,)), after="", limit=1000)
    return {int(layer.digest, 16): layer.announced_at for layer in layers}


async def test_what_comes_together_is_one_change(journal: Journal) -> None:
    recorder = Recorder(journal)
    async with asyncio.TaskGroup() as group:
        together = [group.create_task(recorder.record([numbered(number)])) for number in range(50)]
    assert {task.result() for task in together} == {50}
    assert await recorder.record([numbered(50)]) == 1
    times = await _times(journal)
    assert sorted(times) == list(range(51))
    assert len({times[number] for number in range(50)}) == 1


async def test_one_that_is_given_up_leaves_the_others_alone(journal: Journal) -> None:
    recorder = Recorder(journal)
    given_up, other = (asyncio.create_task(recorder.record([numbered(number)])) for number in range(2))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await other
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert 1 in await _times(journal)


async def test_after_all_have_been_given_up_others_are_recorded(journal: Journal) -> None:
    recorder = Recorder(journal)
    given_up = [asyncio.create_task(recorder.record([numbered(number)])) for number in range(2)]
    await asyncio.sleep(0)
    for task in given_up:
        task.cancel()
    await asyncio.wait(given_up)
    assert all(task.cancelled() for task in given_up)
    assert await recorder.record([numbered(2)]) == 1
    assert 2 in await _times(journal)


async def test_a_failure_is_told_to_all_and_is_over_then(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"

    def rename(old: str, new: str) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"ALTER TABLE {old} RENAME TO {new}")

    async with Journal(SqliteDatabase(path)) as journal:
        recorder = Recorder(journal)
        rename("layers", "gone")
        together = [asyncio.create_task(recorder.record([numbered(number)])) for number in range(3)]
        await asyncio.wait(together)
        assert all("no such table" in str(task.exception()) for task in together)
        rename("gone", "layers")
        assert await recorder.record([numbered(3)]) == 1
        assert list(await _times(journal)) == [3]
