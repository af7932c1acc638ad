"""Senders of hints are answered in time, whatever the disk does."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from harness.processes import wait_until
from services.converter.hints.errors import JournalSlowError
from services.converter.hints.journal import HintJournal
from services.converter.hints.model import Event
from services.converter.hints.recorder import PromptRecorder
from tests.support.hints import hint

_A, _B = (hint(f"registry.example.org/physics/tool:{tag}") for tag in "ab")


@pytest_asyncio.fixture
async def journal(tmp_path: Path) -> AsyncIterator[HintJournal]:
    async with HintJournal(tmp_path / "hints.sqlite", limit=10) as journal:
        yield journal


@pytest.fixture
def blocked(journal: HintJournal, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A transaction that nothing can be written beside."""
    del journal
    with closing(sqlite3.connect(tmp_path / "hints.sqlite", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


async def test_what_is_not_on_the_disk_in_time_gets_there_and_nothing_queues_behind_it(
    journal: HintJournal, blocked: sqlite3.Connection
) -> None:
    recorder = PromptRecorder(journal, patience=0.05)
    with pytest.raises(JournalSlowError, match="may get there yet"):
        await recorder.record("site", [Event(_A)])
    with pytest.raises(JournalSlowError, match="too slow"):
        await recorder.record("site", [Event(_B)])
    blocked.execute("COMMIT")
    assert await journal.next() == _A
    assert journal.pending == 1

    async def is_taken() -> bool:
        try:
            return (await recorder.record("site", [Event(_B)])).taken == 1
        except JournalSlowError:
            return False

    await wait_until(is_taken, what="the next hint is taken")
    assert await journal.next() == _B


async def test_what_fails_after_its_sender_was_answered_is_in_the_log(
    journal: HintJournal, blocked: sqlite3.Connection
) -> None:
    recorder = PromptRecorder(journal, patience=0.05)
    with capture_logs() as logs:
        with pytest.raises(JournalSlowError):
            await recorder.record("site", [Event(_A)])
        blocked.execute("DROP TABLE pending")
        blocked.execute("COMMIT")

        async def is_said() -> bool:
            return bool(logs)

        await wait_until(is_said, what="the failure is in the log")
    assert "no such table" in logs[0]["reason"]
