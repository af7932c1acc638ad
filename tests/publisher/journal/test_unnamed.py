"""A layer goes when two clocks agree: the one that can be set, and the publisher's own running time."""

import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import update

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.publisher.journal.expressions import given
from services.publisher.journal.image_model import ImageRecord, ImageWish
from services.publisher.journal.journal import Journal
from services.publisher.journal.tables import layers
from services.publisher.journal.versions import AddedLayer, PublishedImage
from tests.support.journal import image_version
from tests.support.journal_databases import Open

_DAY = 86400.0
_ONE, _TWO = Digest("1" * 64), Digest("2" * 64)


@pytest.fixture
async def journal(new_journal: Open) -> AsyncIterator[Journal]:
    """A journal of two layers that came from a registry and that nothing names."""
    async with Journal(new_journal()) as journal:
        await journal.versions.added(
            [AddedLayer(digest=digest, archive_size=10, tree_size=20) for digest in (_ONE, _TWO)], revision=1
        )
        yield journal


async def _due(journal: Journal, *, after: float = 30 * _DAY, seen: float = _DAY, limit: int = 10) -> list[Digest]:
    return [layer.digest for layer in await journal.unnamed.due(after=after, seen=seen, limit=limit)]


async def test_a_clock_that_jumps_ahead_collects_nothing_by_itself(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await journal.unnamed.look(5)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 400 * _DAY)
    await journal.unnamed.look(3600)
    assert await _due(journal) == []
    await journal.unnamed.look(_DAY - 3601)
    assert await _due(journal) == []
    await journal.unnamed.look(2)
    assert await _due(journal) == [_ONE, _TWO]
    assert await _due(journal, limit=1) == [_ONE]
    # And one that goes back keeps what would go.
    monkeypatch.setattr(time, "time", lambda: now + 29 * _DAY)
    assert await _due(journal) == []


async def test_the_running_time_alone_collects_nothing(journal: Journal) -> None:
    for _ in range(40):
        await journal.unnamed.look(_DAY)
    assert await _due(journal) == []
    assert await _due(journal, after=0) == [_ONE, _TWO]


async def test_what_was_named_meanwhile_begins_anew(journal: Journal, new_journal: Open) -> None:
    await journal.unnamed.look(0)
    await journal.unnamed.look(2 * _DAY)
    assert await _due(journal, after=0) == [_ONE, _TWO]
    async with new_journal() as other:
        later = update(layers).values(named_last=layers.c.named_last + 1).where(layers.c.digest == given("one"))
        await other.run(later, one=_ONE)
    assert await _due(journal, after=-10) == [_TWO]
    await journal.unnamed.look(0.5 * _DAY)
    assert await _due(journal, after=-10) == [_TWO]
    await journal.unnamed.look(_DAY)
    assert await _due(journal, after=-10) == [_TWO, _ONE]


async def test_layers_of_commits_are_never_due(journal: Journal) -> None:
    await journal.unnamed.look(0)
    await journal.unnamed.look(2 * _DAY)
    await journal.announce([_ONE])
    assert await _due(journal, after=0) == [_TWO]
    assert await journal.unnamed.claim([_ONE, _TWO]) == [_TWO]
    assert (await journal.unnamed.summary()).layers == 1


async def test_what_the_bucket_announces_during_a_collection_is_fetched_again(journal: Journal) -> None:
    assert await journal.unnamed.claim([_ONE, _TWO]) == [_ONE, _TWO]
    await journal.announce([_ONE])
    await journal.unnamed.collected([_ONE, _TWO])
    record = await journal.get(_ONE)
    assert record is not None
    assert record.state == "announced"
    assert await journal.get(_TWO) is None


async def test_what_an_image_has_brought_again_before_its_collection_is_recorded_stays_recorded(
    journal: Journal,
) -> None:
    assert await journal.unnamed.claim([_ONE, _TWO]) == [_ONE, _TWO]
    await journal.versions.added([AddedLayer(digest=_ONE, archive_size=10, tree_size=20)], revision=3)
    await journal.unnamed.collected([_ONE, _TWO])
    record = await journal.get(_ONE)
    assert record is not None
    assert (record.state, record.revision) == ("published", 3)
    assert await journal.get(_TWO) is None


async def test_what_one_collection_has_done_says_nothing_of_another(journal: Journal) -> None:
    await journal.unnamed.claim([_ONE])
    await journal.unnamed.claim([_TWO])
    await journal.unnamed.collected([], kept=[_TWO])
    assert await journal.unnamed.interrupted() == [_ONE]
    assert await journal.get(_TWO) is not None


async def test_a_version_that_was_collected_keeps_its_layers_once_it_is_to_come_again(journal: Journal) -> None:
    name, digest = ImageName("quay.io/ns/tool:v1"), Digest("0" * 63 + "1")
    version = image_version(name, 7, number=1)
    (layer,) = version.layers
    added = AddedLayer(digest=layer.digest, archive_size=10, tree_size=20)

    async def claimed() -> ImageRecord:
        record = await journal.images.claim(busy=(), full=())
        assert record is not None
        return record

    wish = ImageWish(name=name, reference=name, digest=digest, platforms=("linux/amd64",))
    await journal.images.ask(wish)
    record = await claimed()
    assert await journal.versions.resolved(record, version, seconds=0)
    image = PublishedImage(record=record, version=version, seconds=0, added=[added])
    await journal.versions.published([image], (), revision=1)
    await journal.images.release([name])
    await journal.images.remove(name, keep=0)
    await journal.versions.published((), [await claimed()], revision=2)
    await journal.images.release([name])
    assert await journal.unnamed.claim([layer.digest]) == [layer.digest]
    await journal.unnamed.collected([layer.digest])
    await journal.versions.added([added], revision=3)  # by another image, which names it no more
    await journal.images.ask(wish)
    assert await journal.versions.resolved(await claimed(), version, seconds=0)
    assert await journal.unnamed.claim([layer.digest]) == []
