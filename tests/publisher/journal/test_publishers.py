"""Publishers that share a journal: who is there, who has gone, and what becomes of what those had claimed."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from sqlalchemy import update

from services.common.database.expressions import given
from services.common.image_name import ImageName
from services.publisher.errors import LeaseLostError
from services.publisher.journal.image_model import ImageState, ImageWish
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerState
from services.publisher.journal.sqlite import SqliteDatabase
from services.publisher.journal.tables import publishers
from tests.support.journal import claim, image_version, numbered, recorded
from tests.support.journal_databases import Open

_NAME = ImageName("quay.io/ns/tool:v1")
_BACK = update(publishers).values(lease_until=publishers.c.lease_until - 1000).where(publishers.c.id == given("gone"))


@dataclass(frozen=True)
class Site:
    """Two publishers of one journal."""

    one: Journal
    two: Journal
    database: Open

    async def expire(self, journal: Journal) -> None:
        """Let the lease of a publisher run out."""
        async with self.database() as database:
            await database.run(_BACK, gone=journal.publisher)


@pytest.fixture
async def site(new_journal: Open, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    # So that the same statements are tried in a file as well, which only one publisher has.
    monkeypatch.setattr(SqliteDatabase, "shared", True)
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(Journal(new_journal(), alone=False)) for _ in range(2)]
        for journal, name in ((one, "one"), (two, "two")):
            await journal.publishers.enter(name=name)
        yield Site(one, two, new_journal)


async def test_publishers_are_listed_with_what_they_have_claimed(site: Site) -> None:
    await site.one.announce(map(numbered, range(3)))
    await site.one.claim()
    await site.one.claim()
    await site.two.claim()
    await site.one.images.ask(_wish())
    await site.two.images.claim(busy=(), full=())
    await site.two.publishers.renew(leads=True)
    first, second = await site.one.publishers.list()
    assert (first.id, first.name) == (site.one.publisher, "one")
    assert (first.layers, first.images, first.leads, first.gone) == (2, 0, False, False)
    assert (second.layers, second.images, second.leads, second.gone) == (1, 1, True, False)
    assert second.seen_at > second.started_at >= first.started_at
    await site.two.publishers.leave()
    first, second = await site.one.publishers.list()
    assert (second.layers, second.images, second.leads, second.gone, second.ended) == (0, 0, False, True, True)
    assert not first.gone
    await site.expire(site.one)
    assert [publisher.gone for publisher in await site.two.publishers.list()] == [True, True]
    await site.two.publishers.take_over()
    assert [publisher.ended for publisher in await site.two.publishers.list()] == [False, True]


async def test_what_one_has_claimed_is_no_other_s_until_it_has_gone(site: Site) -> None:
    one, two = site.one, site.two
    await one.announce([numbered(1), numbered(2)])
    await claim(one, numbered(1), numbered(2))
    assert await one.verified(numbered(1), archive_size=10)
    await two.publishers.take_over()
    assert await two.claim() is None
    assert not (await two.publishers.renew()).abandoned
    await site.expire(one)
    assert (await two.publishers.renew()).abandoned
    assert await one.advance([numbered(1)], LayerState.PUBLISHING) == {numbered(1)}  # nobody has taken it yet
    await two.publishers.take_over()
    assert not (await two.publishers.renew()).abandoned
    await claim(two, numbered(1), numbered(2))
    # It comes back, and whatever it says has no effect.
    with pytest.raises(LeaseLostError, match="start it again"):
        await one.publishers.renew()
    digests = [numbered(1), numbered(2)]
    before = [await recorded(two, digest) for digest in digests]
    assert await one.advance(digests, LayerState.PUBLISHING) == set()
    assert await one.held(digests) == set()
    assert not await one.verified(numbered(1), archive_size=11)
    assert await one.published(digests, 7) == set()
    assert not await one.refused(numbered(1), "late")
    assert not await one.failed(numbered(1), "late", due=0)
    assert await one.failed_together(digests, "late", due=0, share=1) == set()
    await one.give_back(digests)
    await one.publishers.leave()
    assert [await recorded(two, digest) for digest in digests] == before
    assert await two.published(digests, 8) == set(digests)
    assert {(await recorded(one, digest)).claimed_by for digest in digests} == {None}


async def test_one_that_was_late_but_was_not_missed_goes_on(site: Site) -> None:
    await site.expire(site.one)
    await site.one.publishers.renew()
    await site.two.publishers.take_over()
    assert [publisher.gone for publisher in await site.two.publishers.list()] == [False, False]
    await site.one.publishers.renew()


async def test_one_that_leaves_gives_back_what_it_had(site: Site) -> None:
    one, two = site.one, site.two
    await one.announce([numbered(1)])
    await claim(one, numbered(1))
    await one.images.ask(_wish())
    assert await one.images.claim(busy=(), full=())
    await one.publishers.leave()
    await claim(two, numbered(1))
    assert await two.images.claim(busy=(), full=())
    with pytest.raises(LeaseLostError):
        await one.publishers.renew()


async def test_nobody_else_works_under_the_name_of_an_image(site: Site) -> None:
    one, two = site.one, site.two
    await one.images.ask(_wish(1))
    record = await one.images.claim(busy=(), full=())
    assert record is not None
    await two.images.ask(_wish(2))
    assert await two.images.claim(busy=(), full=()) is None
    assert [later.ask for later in await one.images.claimed([_NAME])] == [record.ask + 1]
    await one.images.release([_NAME])
    later = await two.images.claim(busy=(), full=())
    assert later is not None
    assert (later.asked, later.claimed_by) == (numbered(2), two.publisher)


async def test_an_image_that_one_may_have_published_is_looked_at_before_it_is_given_to_another(site: Site) -> None:
    one, two = site.one, site.two
    await one.images.ask(_wish(1))
    record = await one.images.claim(busy=(), full=())
    assert record is not None
    version = image_version(_NAME, 1, number=1)
    assert await one.versions.resolved(record, version, seconds=1)
    assert await one.images.enter(record)
    await one.publishers.leave()  # in the middle of a transaction
    assert (await two.publishers.renew()).abandoned
    (left,) = (await two.publishers.take_over()).publishing
    assert left.state is ImageState.PUBLISHING
    assert await two.images.claim(busy=(), full=()) is None
    assert not await one.images.failed(record, "late", due=0)
    assert not await one.versions.resolved(record, version, seconds=1)
    await two.images.give_back([left])
    again = await one.images.get(_NAME)
    assert again is not None
    assert (again.state, again.claimed_by) == (ImageState.ASKED, None)


async def test_transactions_of_one_that_is_at_work_are_no_other_s(site: Site) -> None:
    one, two = site.one, site.two
    await one.begin("first")
    await two.begin("second")
    assert [own.token for own in await two.transactions()] == ["second"]
    await two.none_open()
    assert [own.token for own in await one.transactions()] == ["first"]
    await one.publishers.leave()
    assert [own.token for own in await two.transactions()] == ["first"]


async def test_where_nobody_else_can_work_all_others_have_gone(new_journal: Open) -> None:
    async with Journal(new_journal()) as one, Journal(new_journal()) as two:
        await one.publishers.enter(name="one")
        await one.announce([numbered(1)])
        await claim(one, numbered(1))
        await two.publishers.enter(name="two")
        await two.publishers.take_over()
        await claim(two, numbered(1))
        assert await one.published([numbered(1)], 1) == set()


def _wish(number: int | None = None) -> ImageWish:
    digest = None if number is None else numbered(number)
    return ImageWish(name=_NAME, reference=_NAME, digest=digest, platforms=("linux/amd64",))
