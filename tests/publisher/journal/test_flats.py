"""Flat images stay while a visible version has them, and for as long after that as their versions are kept."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.image_outputs import NO_OUTPUTS, FlatOutput, ImageOutputs
from services.publisher.journal.image_model import ImageRecord, ImageVersion, ImageWish, PlatformImage
from services.publisher.journal.journal import Journal
from services.publisher.journal.versions import PublishedImage
from tests.support.journal_databases import Open

_HOUR = 3600.0
_KEEP = 24 * _HOUR
_NAME, _OTHER = ImageName("quay.io/ns/tool:v1"), ImageName("quay.io/ns/other:v1")
_FLAT = ImageOutputs(flat=FlatOutput())
_ONE, _TWO = Digest("1" * 64), Digest("2" * 64)


@pytest.fixture
async def journal(new_journal: Open) -> AsyncIterator[Journal]:
    async with Journal(new_journal()) as journal:
        yield journal


async def _publish(
    journal: Journal, config: Digest, *, name: ImageName = _NAME, outputs: ImageOutputs = _FLAT
) -> ImageRecord:
    """Have an image published whose digest is that of its configuration, backwards."""
    record, version = await _resolved(journal, config, name=name, outputs=outputs)
    await journal.versions.published([PublishedImage(record=record, version=version, seconds=0)], (), revision=1)
    await journal.images.release([name])
    return replace(record, digest=version.digest)


async def _resolved(
    journal: Journal, config: Digest, *, name: ImageName = _NAME, outputs: ImageOutputs = _FLAT
) -> tuple[ImageRecord, ImageVersion]:
    """Have it asked for, and be on its way; else as `_publish`."""
    digest = Digest(config[::-1])
    wish = ImageWish(name=name, reference=name, digest=digest, platforms=("linux/amd64",), keep=_KEEP, outputs=outputs)
    await journal.images.ask(wish)
    record = await _claimed(journal)
    version = ImageVersion(
        name=name,
        digest=digest,
        reference=name,
        platforms=("linux/amd64",),
        images=(PlatformImage("linux/amd64", digest, config, ()),),
        documents={},
        verified=None,
        outputs=outputs,
    )
    assert await journal.versions.resolved(record, version, seconds=0)
    return record, version


async def _claimed(journal: Journal) -> ImageRecord:
    record = await journal.images.claim(busy=(), full=())
    assert record is not None
    return record


async def _removed(journal: Journal, name: ImageName, *, revision: int) -> None:
    await journal.images.remove(name, keep=0)
    await journal.versions.published((), [await _claimed(journal)], revision=revision)


async def _due(journal: Journal, *, after: float = 0) -> list[Digest]:
    await journal.flats.look()
    return [flat.config for flat in await journal.flats.due(after=after, seen=0, limit=10)]


async def test_a_flat_image_outlives_the_switch_as_long_as_its_version_is_kept(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _publish(journal, _ONE)
    assert await _due(journal, after=-1000 * _KEEP) == []
    await _publish(journal, _TWO)
    now = time.time()
    assert await _due(journal) == []
    monkeypatch.setattr(time, "time", lambda: now + _KEEP + _HOUR)
    assert await _due(journal) == [_ONE]
    assert await _due(journal, after=2 * _HOUR) == []
    assert await journal.flats.all() == {_ONE, _TWO}
    await journal.flats.collected([_ONE])
    assert await journal.flats.all() == {_TWO}
    assert await _due(journal) == []


async def test_what_another_image_has_as_well_stays(journal: Journal) -> None:
    await _publish(journal, _ONE)
    await _publish(journal, _ONE, name=_OTHER)
    await _removed(journal, _NAME, revision=2)
    assert await _due(journal, after=-1000 * _KEEP) == []
    await _removed(journal, _OTHER, revision=3)
    assert await _due(journal) == [_ONE]


async def test_an_image_that_is_flat_no_more_keeps_its_root_for_a_while(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _publish(journal, _ONE)
    await _publish(journal, _ONE, outputs=NO_OUTPUTS)
    now = time.time()
    assert await _due(journal) == []
    monkeypatch.setattr(time, "time", lambda: now + _KEEP + _HOUR)
    assert await _due(journal) == [_ONE]


async def test_one_that_is_named_again_meanwhile_is_not_collected(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _publish(journal, _ONE)
    await _publish(journal, _TWO)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + _KEEP + _HOUR)
    await journal.flats.look()
    due = await journal.flats.due(after=0, seen=0, limit=10)
    assert await journal.flats.still_due(due) == [_ONE]
    await _publish(journal, _ONE)
    assert await journal.flats.still_due(due) == []
    assert await _due(journal) == []


async def test_one_that_an_image_is_to_have_is_not_collected(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    await _publish(journal, _ONE)
    await _publish(journal, _TWO)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + _KEEP + _HOUR)
    await journal.flats.look()
    due = await journal.flats.due(after=0, seen=0, limit=10)
    record, _ = await _resolved(journal, _ONE, name=_OTHER)
    # Whoever publishes it may have done so, and not have recorded it.
    assert await journal.flats.still_due(due) == []
    assert await _due(journal) == []
    assert await journal.images.refused(record, "made up", due=None)
    assert await journal.flats.still_due(due) == [_ONE]
    assert await _due(journal) == [_ONE]


async def test_one_that_is_made_anew_before_its_collection_is_recorded_stays_recorded(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _publish(journal, _ONE)
    await _publish(journal, _TWO)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + _KEEP + _HOUR)
    await _publish(journal, _ONE, name=_OTHER)
    await journal.flats.collected([_ONE])
    assert await journal.flats.all() == {_ONE, _TWO}
    await _removed(journal, _OTHER, revision=2)
    assert await _due(journal) == [_ONE]


async def test_other_outputs_are_another_ask_and_are_recorded(journal: Journal) -> None:
    record = await _publish(journal, _ONE)
    wish = ImageWish(
        name=_NAME, reference=_NAME, digest=record.digest, platforms=("linux/amd64",), keep=_KEEP, outputs=_FLAT
    )
    assert (await journal.images.ask(wish)).done
    others = ImageOutputs(flat=FlatOutput(others_read=True))
    asked = await journal.images.ask(replace(wish, outputs=others))
    assert not asked.done
    assert (asked.record.ask, asked.record.outputs) == (record.ask + 1, others)
    (version,) = await journal.versions.of(_NAME)
    assert version.outputs == _FLAT
