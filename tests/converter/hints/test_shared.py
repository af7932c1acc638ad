"""The journal of hints in PostgreSQL: any converter records, the one that works reads, in order, until it is done."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from harness.postgresql import PostgresqlServer
from services.converter.errors import StateError
from services.converter.hints.errors import HintJournalError, JournalFullError
from services.converter.hints.model import Event, Recorded
from services.converter.hints.shared import SharedHintJournal
from services.converter.model import Hint
from services.converter.state.postgresql import PostgresqlState
from tests.support.hints import hint

_A, _B, _C = (hint(f"quay.io/ns/{name}:v1") for name in "abc")


@pytest.fixture
async def works(postgresql: PostgresqlServer, empty_state: str) -> AsyncIterator[SharedHintJournal]:
    """The journal of the converter that works."""
    async with _opened(postgresql, empty_state) as journal:
        yield journal


@pytest.fixture
async def stands_by(postgresql: PostgresqlServer, empty_state: str) -> AsyncIterator[SharedHintJournal]:
    """The journal of another one."""
    async with _opened(postgresql, empty_state) as journal:
        yield journal


@asynccontextmanager
async def _opened(server: PostgresqlServer, url: str, *, limit: int = 1000) -> AsyncIterator[SharedHintJournal]:
    async with (
        PostgresqlState(url, password=server.password) as state,
        SharedHintJournal(url, password=server.password, state=state, limit=limit) as journal,
    ):
        yield journal


async def _record(journal: SharedHintJournal, *hints: Hint) -> None:
    await journal.record("e", [Event(each) for each in hints])


async def test_hints_are_given_out_in_the_order_of_their_last_coming_whoever_took_them(
    works: SharedHintJournal, stands_by: SharedHintJournal
) -> None:
    await _record(works, _A, _B)
    await _record(stands_by, _C, _A, hint("quay.io/ns/a"))
    assert [await works.next() for _ in range(4)] == [_B, _C, _A, hint("quay.io/ns/a")]
    assert works.pending == 4
    waiting = asyncio.ensure_future(works.next())
    await _record(stands_by, _C)  # comes again while it is worked on
    await works.done(_C)
    assert await waiting == _C
    # What is not done is given out again to whoever has the turn next.
    await works.done(_B)
    assert [await stands_by.next() for _ in range(3)] == [_A, hint("quay.io/ns/a"), _C]


async def test_more_than_a_page_is_given_out_in_order_whoever_records_at_the_same_time(
    works: SharedHintJournal, stands_by: SharedHintJournal
) -> None:
    hints = [hint(f"quay.io/ns/tool:{number}") for number in range(240)]
    found = list[Hint]()

    async def take() -> None:
        for _ in hints:
            found.append(await works.next())
            await works.done(found[-1])

    async with asyncio.timeout(300), asyncio.TaskGroup() as group:
        group.create_task(take())
        for start in range(0, len(hints), 20):
            group.create_task(_record((works, stands_by)[start % 40 // 20], *hints[start : start + 20]))
    assert sorted(found, key=hints.index) == hints


async def test_a_delivery_that_comes_again_to_another_converter_changes_nothing(
    works: SharedHintJournal, stands_by: SharedHintJournal, postgresql: PostgresqlServer, empty_state: str
) -> None:
    events = [Event(_A, "id-1"), Event(_B, "id-2")]
    assert await works.record("e", events) == Recorded(taken=2, repeated=0)
    assert await stands_by.record("e", [*events, Event(_C, "id-3")]) == Recorded(taken=1, repeated=2)
    assert await stands_by.record("other", events) == Recorded(taken=2, repeated=0)
    # So many others have come meanwhile that these are forgotten.
    many = "ALTER TABLE hint_deliveries ALTER number RESTART WITH 1000000"
    await postgresql.execute(many, database=empty_state.rpartition("/")[2])
    assert (await works.record("e", [Event(_A, "id-4")])).taken == 1
    assert await works.record("e", [Event(_A, "id-4"), Event(_A, "id-1")]) == Recorded(taken=1, repeated=1)


async def test_a_full_journal_takes_only_what_it_holds_already(postgresql: PostgresqlServer, empty_state: str) -> None:
    async with _opened(postgresql, empty_state, limit=2) as journal:
        await _record(journal, _A, _B)
        with pytest.raises(JournalFullError, match="2 hints wait"):
            await journal.record("e", [Event(_A, "id-1"), Event(_C, "id-2")])
        # Nothing of a delivery that is refused is there, so that it counts when it comes again.
        assert (await journal.record("e", [Event(_A, "id-1")])).taken == 1
        assert await journal.next() == _B
        await journal.done(_B)
        await journal.record("e", [Event(_C, "id-2")])


async def test_a_session_that_has_ended_takes_no_hint_out_and_recording_goes_on(
    postgresql: PostgresqlServer, works: SharedHintJournal, stands_by: SharedHintJournal, empty_state: str
) -> None:
    await _record(works, _A)
    assert await works.next() == _A
    name = empty_state.rpartition("/")[2]
    await postgresql.execute(
        f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608
    )
    with pytest.raises(StateError, match="is lost"):
        await works.done(_A)
    with pytest.raises(HintJournalError, match="failed"):
        await _record(stands_by, _B)
    await _record(stands_by, _B)
    async with _opened(postgresql, empty_state) as journal:
        assert [await journal.next() for _ in range(2)] == [_A, _B]
