"""A publisher is one of several for as long as it renews its lease, and learns what the others do."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest

from harness.postgresql import PostgresqlServer
from harness.processes import wait_until
from services.publisher.errors import JournalError, LeaseLostError
from services.publisher.journal.journal import Journal
from services.publisher.journal.postgresql import PostgresqlDatabase
from services.publisher.journal.sqlite import SqliteDatabase
from services.publisher.pipeline import membership as membership_module
from services.publisher.pipeline.membership import Membership
from tests.support.fault_proxy import Link
from tests.support.journal import claim, numbered

_LONG = 1000.0
_SHORT = 0.2


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a journal that several publishers have."""
    monkeypatch.setattr(SqliteDatabase, "shared", True)
    return tmp_path / "journal.sqlite"


@pytest.fixture
async def journals(path: Path) -> AsyncIterator[tuple[Journal, Journal]]:
    """Two publishers' journals."""
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(Journal(SqliteDatabase(path), alone=False)) for _number in range(2)]
        yield one, two


def _membership(journal: Journal, *, lease: float) -> Membership:
    return Membership(journal=journal, leads=lambda: False, name="here", lease=lease)


async def test_what_others_leave_is_learned(journals: tuple[Journal, Journal]) -> None:
    one, two = journals
    membership = _membership(two, lease=_LONG)
    async with membership, asyncio.TaskGroup() as group:
        running = group.create_task(membership.run())
        async with _membership(one, lease=_SHORT):
            await one.announce([numbered(1)])
            await claim(one, numbered(1))
            await membership.abandoned.wait()
            await two.publishers.take_over()
            await claim(two, numbered(1))
        running.cancel()


async def test_one_that_others_count_as_gone_ends(journals: tuple[Journal, Journal]) -> None:
    one, two = journals
    async with _membership(one, lease=_SHORT) as membership:

        async def has_expired() -> bool:
            return (await two.publishers.list())[0].gone

        await wait_until(has_expired, what="the lease has run out")
        await two.publishers.take_over()
        with pytest.raises(LeaseLostError, match="start it again"):
            await membership.run()


async def test_one_that_cannot_renew_its_lease_ends(journals: tuple[Journal, Journal], path: Path) -> None:
    one, _ = journals
    async with _membership(one, lease=_SHORT) as membership:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("ALTER TABLE publishers RENAME TO hidden")
        with pytest.raises(JournalError, match=r"could not renew its lease of 0\.2 s, .* no such table"):
            await membership.run()
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("ALTER TABLE hidden RENAME TO publishers")


async def test_one_that_ends_since_it_is_cut_off_does_not_wait_for_the_journal(
    postgresql: PostgresqlServer, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership_module, "_LEAVING", 0.5)
    link = Link(postgresql.port)
    async with link.up():
        url = empty_database.replace(f":{postgresql.port}/", f":{link.port}/")
        async with Journal(PostgresqlDatabase(url, password=postgresql.password), alone=False) as journal:

            async def fail() -> None:
                async with asyncio.timeout(60), _membership(journal, lease=_LONG):
                    link.cut()
                    raise JournalError("made up")

            with pytest.raises(JournalError, match="made up"):
                await fail()
            await link.mend()
