"""The journal gives out what it has taken, in order, once for each time that it came, and again after a kill."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio

from services.converter.hints import journal as journals
from services.converter.hints.errors import HintJournalError, JournalFullError
from services.converter.hints.journal import HintJournal
from services.converter.hints.model import Event, Recorded
from services.converter.model import Hint
from tests.support.hints import hint
from tests.support.sqlite_files import cancel_opening, open_below

_A, _B, _C = (hint(f"quay.io/ns/{name}:v1") for name in "abc")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "hints.sqlite"


@pytest_asyncio.fixture
async def journal(path: Path) -> AsyncIterator[HintJournal]:
    async with HintJournal(path, limit=1000) as journal:
        yield journal


async def _record(journal: HintJournal, *hints: Hint) -> None:
    await journal.record("e", [Event(each) for each in hints])


async def _rest(journal: HintJournal) -> list[Hint]:
    """Take everything that is there."""
    return [await journal.next() for _ in range(journal.pending)]


async def test_hints_are_given_out_in_the_order_of_their_last_coming(journal: HintJournal) -> None:
    await _record(journal, _A, _B)
    await _record(journal, _C, _A, hint("quay.io/ns/a"))
    assert journal.pending == 4
    assert await _rest(journal) == [_B, _C, _A, hint("quay.io/ns/a")]


async def test_whoever_waits_gets_what_comes(journal: HintJournal) -> None:
    waiting = [asyncio.ensure_future(journal.next()) for _ in range(2)]
    await asyncio.sleep(0)
    await _record(journal, _A)
    await _record(journal, _B)
    assert {await each for each in waiting} == {_A, _B}


async def test_what_comes_again_while_it_is_worked_on_is_given_out_again(journal: HintJournal) -> None:
    await _record(journal, _A)
    assert await journal.next() == _A
    await _record(journal, _A)
    await journal.done(_A)
    assert await journal.next() == _A
    await journal.done(_A)
    await _record(journal, _B)
    assert await journal.next() == _B
    assert journal.pending == 1


async def test_what_is_not_done_is_given_out_again_by_the_next_process(path: Path) -> None:
    async with HintJournal(path, limit=1000) as journal:
        await _record(journal, _A, _B, _C)
        for expected in (_A, _B):
            assert await journal.next() == expected
        await journal.done(_A)
    async with HintJournal(path, limit=1000) as journal:
        assert journal.pending == 2
        assert await _rest(journal) == [_B, _C]


async def test_more_than_a_page_is_given_out(journal: HintJournal) -> None:
    hints = [hint(f"quay.io/ns/tool:{number}") for number in range(250)]
    await _record(journal, *hints)
    for expected in hints:
        assert await journal.next() == expected
        await journal.done(expected)
    await _record(journal, _A)
    assert await journal.next() == _A
    assert journal.pending == 1


async def test_a_delivery_that_comes_again_changes_nothing(journal: HintJournal) -> None:
    events = [Event(_A, "id-1"), Event(_B, "id-2")]
    assert await journal.record("e", events) == Recorded(taken=2, repeated=0)
    assert await journal.record("e", [*events, Event(_C, "id-3")]) == Recorded(taken=1, repeated=2)
    assert await journal.record("other", events) == Recorded(taken=2, repeated=0)


async def test_deliveries_are_remembered_up_to_a_number(
    journal: HintJournal, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    monkeypatch.setattr(journals, "_REMEMBERED", 10)
    for number in range(30):
        await journal.record("e", [Event(_A, f"id-{number}")])
    with closing(sqlite3.connect(path)) as connection, connection:
        ((count,),) = connection.execute("SELECT count(*) FROM deliveries")
    connection.close()
    assert count == 10
    assert (await journal.record("e", [Event(_A, "id-29")])).repeated == 1


async def test_a_full_journal_takes_only_what_it_holds_already(path: Path) -> None:
    async with HintJournal(path, limit=2) as journal:
        await _record(journal, _A, _B)
        with pytest.raises(JournalFullError, match="2 hints wait"):
            await journal.record("e", [Event(_A, "id-1"), Event(_C, "id-2")])
        # Nothing of a delivery that is refused is there, so that it counts when it comes again.
        assert (await journal.record("e", [Event(_A, "id-1")])).taken == 1
        assert await journal.next() == _B
        await journal.done(_B)
        assert await journal.next() == _A
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await journal.next()
        await journal.record("e", [Event(_C, "id-2")])
        assert journal.pending == 2


async def test_a_cancelled_wait_loses_nothing(journal: HintJournal) -> None:
    for number in range(20):
        waiting = asyncio.ensure_future(journal.next())
        await asyncio.sleep(0)
        recording = asyncio.ensure_future(_record(journal, hint(f"quay.io/ns/tool:{number}")))
        for _ in range(number):
            await asyncio.sleep(0)
        waiting.cancel()
        await recording
        [result] = await asyncio.gather(waiting, return_exceptions=True)
        if isinstance(result, BaseException):
            result = await journal.next()
        assert result == hint(f"quay.io/ns/tool:{number}")


async def test_a_burst_is_synced_together(journal: HintJournal) -> None:
    commits = 0
    commit = journal._commit  # noqa: SLF001 - what is counted

    def counted() -> None:
        nonlocal commits
        commits += 1
        commit()

    journal._thread.finish_by(counted)  # noqa: SLF001 - as above
    async with asyncio.TaskGroup() as group:
        for number in range(1000):
            group.create_task(_record(journal, hint(f"quay.io/ns/tool:{number}")))
    assert journal.pending == 1000
    assert commits < 100


async def test_a_file_that_is_no_journal_is_refused_with_what_to_do(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database, but long enough to be looked at" * 100)
    with pytest.raises(HintJournalError, match="move the file away"):
        async with HintJournal(path, limit=10):
            pass
    path.unlink()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(HintJournalError, match="has version 9"):
        async with HintJournal(path, limit=10):
            pass
    assert open_below(path.parent) == []


async def test_an_opening_that_is_cancelled_leaves_no_file_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await cancel_opening(HintJournal(path, limit=10).__aenter__, at="CREATE TABLE", monkeypatch=monkeypatch)
    assert open_below(path.parent) == []


async def test_a_file_that_cannot_be_written_is_said_so_and_nothing_is_taken(journal: HintJournal) -> None:
    await _record(journal, _A)
    await journal._thread.run(lambda: journal._connection.execute("PRAGMA query_only = ON"))  # noqa: SLF001 - a fault
    with pytest.raises(HintJournalError, match="failed"):
        await _record(journal, _B)
    await journal._thread.run(lambda: journal._connection.execute("PRAGMA query_only = OFF"))  # noqa: SLF001 - its end
    assert journal.pending == 1
    await _record(journal, _C)
    assert await _rest(journal) == [_A, _C]
