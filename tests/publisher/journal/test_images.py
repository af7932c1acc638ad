"""The journal of images: what is wanted, what was done for what is wanted no more, and what names which layers."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from services.common.image_name import ImageName
from services.publisher.journal.image_model import ImageRecord, ImageSelection, ImageState, ImageVersion, ImageWish
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerSource, LayerState
from services.publisher.journal.versions import AddedLayer, PublishedImage
from tests.support.journal import image_version, numbered, recorded
from tests.support.journal_databases import Open

_NAME = ImageName("quay.io/ns/tool:v1")
_OTHER = ImageName("ghcr.io/ns/tool:v1")


@pytest.fixture
async def journal(new_journal: Open) -> AsyncIterator[Journal]:
    async with Journal(new_journal()) as journal:
        yield journal


def _wish(name: ImageName = _NAME, number: int | None = None, **more: object) -> ImageWish:
    wish = ImageWish(
        name=name,
        reference=str(name),
        digest=None if number is None else numbered(number),
        platforms=("linux/amd64",),
    )
    return replace(wish, **more)  # type: ignore[arg-type] # the fields of a wish


async def _claimed(journal: Journal, wish: ImageWish) -> ImageRecord:
    await journal.images.ask(wish)
    record = await journal.images.claim(busy=(), full=())
    assert record is not None
    assert record.name == wish.name
    return record


async def _claimed_again(journal: Journal) -> ImageRecord:
    record = await journal.images.claim(busy=(), full=())
    assert record is not None
    assert record.name == _NAME
    return record


async def _state(journal: Journal, name: ImageName = _NAME) -> ImageState:
    record = await journal.images.get(name)
    assert record is not None
    return record.state


def _image(record: ImageRecord, version: ImageVersion, *added: int) -> PublishedImage:
    layers = [AddedLayer(numbered(number), archive_size=10, tree_size=20) for number in added]
    return PublishedImage(record=record, version=version, seconds=1, added=layers)


async def _publish(journal: Journal, wish: ImageWish, *layers: int, number: int) -> ImageRecord:
    record = await _claimed(journal, wish)
    version = image_version(wish.name, *layers, number=number)
    assert await journal.versions.resolved(record, version, seconds=1)
    await journal.versions.published([_image(record, version, *layers)], (), revision=number)
    await journal.images.release([wish.name])
    published = await journal.images.get(wish.name)
    assert published is not None
    return published


async def test_images_are_claimed_by_priority_and_then_by_time(journal: Journal) -> None:
    names = [ImageName(f"quay.io/ns/tool:{tag}") for tag in ("first", "second", "urgent")]
    for name, priority in zip(names, (0, 0, 5), strict=True):
        await journal.images.ask(_wish(name, priority=priority))
    claimed = [await journal.images.claim(busy=(), full=()) for _ in range(4)]
    assert [record and record.name for record in claimed] == [names[2], names[0], names[1], None]


async def test_nothing_is_claimed_of_a_registry_that_has_enough(journal: Journal) -> None:
    await journal.images.ask(_wish())
    await journal.images.ask(_wish(_OTHER))
    record = await journal.images.claim(busy=(), full=("quay.io",))
    assert record is not None
    assert record.name == _OTHER
    assert await journal.images.next_due(busy=(), full=("quay.io",)) is None
    assert await journal.images.next_due(busy=(_NAME,), full=()) is None
    assert await journal.images.next_due(busy=(), full=()) == 0


async def test_what_was_begun_for_an_earlier_ask_has_no_effect(journal: Journal) -> None:
    record = await _claimed(journal, _wish(number=1))
    later = (await journal.images.ask(_wish(number=2))).record
    assert later.ask == record.ask + 1
    version = image_version(_NAME, 1, number=1)
    assert not await journal.versions.resolved(record, version, seconds=1)
    assert not await journal.images.ready(record, seconds=1)
    assert not await journal.images.enter(record)
    await journal.images.failed(record, "too late", due=0)
    await journal.images.failed_together([record], "too late", due=0, share=1)
    assert await journal.images.get(_NAME) == later
    # What a transaction has made visible all the same is recorded.
    await journal.versions.published([_image(record, version)], (), revision=7)
    now = await journal.images.get(_NAME)
    assert now is not None
    assert (now.state, now.published, now.revision) == (ImageState.ASKED, numbered(1), 7)


async def test_a_tag_that_is_asked_for_while_it_is_fetched_is_looked_at_once_more(journal: Journal) -> None:
    record = await _claimed(journal, _wish())
    version = image_version(_NAME, 1, number=1)
    assert await journal.versions.resolved(record, version, seconds=1)
    assert (await journal.images.ask(_wish())).record.ask == record.ask
    await journal.versions.published([_image(record, version)], (), revision=1)
    assert await _state(journal) is ImageState.ASKED
    assert await journal.images.claim(busy=(), full=()) is None
    await journal.images.release([_NAME])
    again = await _claimed_again(journal)
    await journal.versions.unchanged(again)
    assert await _state(journal) is ImageState.PUBLISHED


async def test_an_ask_for_what_is_refused_changes_nothing_unless_it_is_for_a_tag(journal: Journal) -> None:
    record = await _claimed(journal, _wish(number=1))
    await journal.images.refused(record, "forged", due=None)
    await journal.images.ask(_wish(number=1))
    assert await _state(journal) is ImageState.FAILED
    assert await journal.images.next_due(busy=(), full=()) is None
    await journal.images.retry(_NAME)
    assert await _state(journal) is ImageState.ASKED
    await journal.images.refused(record, "forged", due=None)
    await journal.images.ask(_wish(number=2))
    assert await _state(journal) is ImageState.ASKED


async def test_a_failed_image_waits_until_it_is_due(journal: Journal) -> None:
    record = await _claimed(journal, _wish(number=1))
    due = time.time() + 1000
    await journal.images.failed(record, "the registry is down", due=due)
    await journal.images.release([_NAME])
    await journal.images.ask(_wish(number=1))  # which does not take the pause back
    assert await journal.images.claim(busy=(), full=()) is None
    assert await journal.images.next_due(busy=(), full=()) == due


async def test_a_refused_image_is_looked_at_again_when_it_is_due(journal: Journal) -> None:
    record = await _claimed(journal, _wish(number=1))
    await journal.images.refused(record, "forged", due=time.time() + 1000)
    assert await journal.images.claim(busy=(), full=()) is None
    assert (await journal.images.summary()).refused == 1
    await journal.images.refused(record, "forged", due=time.time() - 1)
    await journal.images.release([_NAME])
    again = await _claimed_again(journal)
    assert (again.name, again.attempts) == (_NAME, 2)


async def test_the_last_failures_are_shown_and_the_refused_ones_found(journal: Journal) -> None:
    for name, refused in ((_NAME, False), (_OTHER, True)):
        record = await _claimed(journal, _wish(name))
        if refused:
            await journal.images.refused(record, "forged", due=None)
        else:
            await journal.images.failed(record, "the registry is down", due=time.time() + 1000)
    assert [record.name for record in await journal.images.recent_failures(9)] == [_OTHER, _NAME]
    assert [record.name for record in await journal.images.recent_failures(1)] == [_OTHER]
    for wanted, name in ((True, _OTHER), (False, _NAME)):
        found = await journal.images.page(ImageSelection(refused=wanted), after="", limit=9)
        assert [record.name for record in found] == [name]


async def test_a_removal_that_fails_is_tried_again_until_it_is_given_up(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _publish(journal, _wish(number=1), 1, number=1)
    await journal.images.remove(_NAME, keep=0)
    record = await _claimed_again(journal)
    due = time.time() + 1000
    await journal.images.failed(record, "in the way", due=due)
    assert await _state(journal) is ImageState.REMOVING
    await journal.images.release([_NAME])
    assert await journal.images.next_due(busy=(), full=()) == due
    monkeypatch.setattr(time, "time", lambda: due)
    record = await _claimed_again(journal)
    await journal.images.refused(record, "in the way", due=due - 1)
    await journal.images.release([_NAME])
    assert await _state(journal) is ImageState.FAILED
    assert await journal.images.next_due(busy=(), full=()) is None


async def test_a_stopped_publisher_s_images_are_asked_for_again(journal: Journal, new_journal: Open) -> None:
    await _claimed(journal, _wish(_OTHER, number=1))
    record = await _claimed(journal, _wish(number=1))
    assert await journal.images.enter(record)
    async with Journal(new_journal()) as other:
        (left,) = (await other.publishers.take_over()).publishing
        assert left.name == _NAME
        assert await _state(journal, _OTHER) is ImageState.ASKED
        assert await _state(journal) is ImageState.PUBLISHING
        await other.images.give_back([left])
    assert await _state(journal) is ImageState.ASKED


async def test_documents_are_kept_byte_by_byte(journal: Journal) -> None:
    await _publish(journal, _wish(verified={"key": "k"}), 1, 2, number=1)
    version = await journal.versions.read(_NAME, numbered(1))
    assert version == image_version(_NAME, 1, 2, number=1)
    assert await journal.versions.read(_NAME, numbered(2)) is None


async def test_versions_that_were_never_visible_are_forgotten(journal: Journal) -> None:
    await _publish(journal, _wish(number=1), 1, number=1)
    for number in (2, 3):
        record = await _claimed(journal, _wish(number=number))
        assert await journal.versions.resolved(record, image_version(_NAME, number, number=number), seconds=1)
        await journal.images.release([_NAME])
    assert await journal.versions.read(_NAME, numbered(2)) is None
    assert await journal.versions.read(_NAME, numbered(3)) is not None
    assert [version.digest for version in await journal.versions.of(_NAME)] == [numbered(1)]


async def test_layers_are_named_as_long_as_a_version_is_visible_or_kept(journal: Journal) -> None:
    await _publish(journal, _wish(number=1), 1, 2, number=1)
    layer = await recorded(journal, numbered(1))
    assert (layer.state, layer.source, layer.named_last) == (LayerState.PUBLISHED, LayerSource.REGISTRY, None)
    before = time.time()
    await _publish(journal, _wish(number=2, keep=100), 2, 3, number=2)
    kept = (await recorded(journal, numbered(1))).named_last
    assert kept is not None
    assert before + 100 <= kept <= time.time() + 100
    for number in (2, 3):
        assert (await recorded(journal, numbered(number))).named_last is None
    # The version of before is wanted again, and then the name goes.
    await _publish(journal, _wish(number=1), 1, 2, number=1)
    assert (await recorded(journal, numbered(1))).named_last is None
    await journal.images.remove(_NAME, keep=50)
    record = await _claimed_again(journal)
    await journal.versions.published((), [record], revision=9)
    assert await _state(journal) is ImageState.REMOVED
    for number in (1, 2):
        named = (await recorded(journal, numbered(number))).named_last
        assert named is not None
        assert named <= time.time() + 100


async def test_a_layer_of_the_bucket_stays_one(journal: Journal) -> None:
    await journal.announce([numbered(1)])
    await _publish(journal, _wish(number=1), 1, 2, number=1)
    assert (await recorded(journal, numbered(1))).source is LayerSource.BUCKET
    await journal.announce_found([numbered(2)])  # whoever commits it later makes it one
    layer = await recorded(journal, numbered(2))
    assert (layer.state, layer.source) == (LayerState.PUBLISHED, LayerSource.BUCKET)


async def test_layers_without_their_image_are_named_by_nobody(journal: Journal) -> None:
    await journal.versions.added([AddedLayer(numbered(1), archive_size=1, tree_size=1)], revision=3)
    assert (await recorded(journal, numbered(1))).named_last is not None


async def test_a_cancelled_caller_leaves_all_of_a_change_or_nothing(journal: Journal) -> None:
    version = image_version(_NAME, *range(200), number=1)
    for wait in range(0, 60, 7):
        record = await _claimed(journal, _wish(number=1, priority=wait))
        task = asyncio.create_task(journal.versions.resolved(record, version, seconds=1))
        for _ in range(wait):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        known = await journal.versions.read(_NAME, version.digest)
        layers = await journal.versions.layers([(_NAME, version.digest)])
        assert (known is None) == (layers == {})
        assert known in (None, version)
        current = await journal.images.get(_NAME)
        assert current is not None
        await journal.images.give_back([current])
