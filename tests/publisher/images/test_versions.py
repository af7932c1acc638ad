"""What a name has named: replaced, removed, brought back, and which layers are named by what."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from services.common.digest import Digest
from services.common.publisher_api import PublisherRefusedError
from tests.support.image_site import ImagePublisher, layer_of, push_image, sha256
from tests.support.registries import RegistryServer

pytestmark = pytest.mark.asyncio(loop_scope="session")


def _named_last(publisher: ImagePublisher, *layers: bytes) -> list[float | None]:
    """Until when versions named layers; the journal is read as whoever collects reads it."""
    with closing(sqlite3.connect(publisher.directory / "state" / "journal.sqlite")) as journal, journal:
        rows = dict(journal.execute("SELECT digest, named_last FROM layers WHERE source = 'registry'"))
    journal.close()
    return [rows[sha256(layer)] for layer in layers]


async def test_a_tag_is_replaced_and_the_former_version_is_kept(
    registry: RegistryServer, publisher: ImagePublisher
) -> None:
    shared, old, new = layer_of("versions shared"), layer_of("versions old"), layer_of("versions new")
    name = await push_image(registry, "versions:1", [shared, old])
    first = await publisher.published(name)
    assert _named_last(publisher, shared, old) == [None, None]
    await push_image(registry, "versions:1", [shared, new])
    before = time.time()
    await publisher.ask(name, keep_replaced_seconds=1000)
    second = await publisher.replaced(name, first)
    assert sha256(publisher.documents(name)["manifest.json"]) == second.published_digest
    versions = await publisher.api.versions(name)
    assert [version.digest for version in versions] == [second.published_digest, first.published_digest]
    assert versions[0].replaced_at is None
    assert versions[1].replaced_at is not None
    kept = _named_last(publisher, shared, new, old)
    assert kept[:2] == [None, None]
    assert before + 1000 <= (kept[2] or 0) <= time.time() + 1000


async def test_what_was_replaced_is_brought_back_without_its_registry(
    registry: RegistryServer, publisher: ImagePublisher
) -> None:
    old, new = layer_of("restore old"), layer_of("restore new")
    name = await push_image(registry, "restore:1", [old])
    first = await publisher.published(name)
    manifest = publisher.documents(name)["manifest.json"]
    await push_image(registry, "restore:1", [new])
    await publisher.ask(name)
    second = await publisher.replaced(name, first)
    await publisher.api.restore(name)
    restored = await publisher.replaced(name, second)
    assert restored.published_digest == first.published_digest
    assert restored.bytes_fetched == 0
    assert publisher.documents(name)["manifest.json"] == manifest
    assert _named_last(publisher, old) == [None]
    assert _named_last(publisher, new) != [None]
    with pytest.raises(PublisherRefusedError, match="no such version"):
        await publisher.api.restore(name, Digest("0" * 64))


async def test_an_image_is_removed_and_brought_back(registry: RegistryServer, publisher: ImagePublisher) -> None:
    layer = layer_of("removed")
    name = await push_image(registry, "removed:1", [layer])
    image = await publisher.published(name)
    before = time.time()
    await publisher.api.remove(name, keep_seconds=500)
    removed = await publisher.becomes(name, "removed")
    assert removed.published_digest is None
    assert removed.removed_at is not None
    assert publisher.documents(name) == {}
    assert publisher.has(layer) == [True]
    (kept,) = _named_last(publisher, layer)
    assert before + 500 <= (kept or 0) <= time.time() + 500
    await publisher.api.restore(name)
    back = await publisher.becomes(name, "published")
    assert back.published_digest == image.published_digest
    assert back.removed_at is None
    assert _named_last(publisher, layer) == [None]
    assert set(publisher.documents(name)) == {"manifest.json", "config.json", "image.json"}


async def test_a_layer_that_two_images_name_is_named_until_both_are_gone(
    registry: RegistryServer, publisher: ImagePublisher
) -> None:
    layer = layer_of("two names")
    one = await push_image(registry, "two:1", [layer])
    other = await push_image(registry, "two:2", [layer, layer_of("two names, more")])
    await publisher.published(one)
    await publisher.published(other)
    await publisher.api.remove(one, keep_seconds=0)
    await publisher.becomes(one, "removed")
    assert _named_last(publisher, layer) == [None]
    await publisher.api.remove(other, keep_seconds=0)
    await publisher.becomes(other, "removed")
    assert _named_last(publisher, layer) != [None]


async def test_a_journal_that_is_lost_makes_nothing_collectable(registry: RegistryServer, tmp_path: Path) -> None:
    layer = layer_of("lost journal")
    name = await push_image(registry, "lost:1", [layer])
    async with ImagePublisher.running(tmp_path / "publisher") as publisher:
        await publisher.published(name)
    for path in (tmp_path / "publisher" / "state").glob("journal.sqlite*"):
        path.unlink()
    async with ImagePublisher.running(tmp_path / "publisher") as publisher:
        image = await publisher.published(name)
        assert image.bytes_fetched == 0
        with closing(sqlite3.connect(publisher.directory / "state" / "journal.sqlite")) as journal, journal:
            assert journal.execute("SELECT count(*) FROM layers").fetchone() == (0,)
        journal.close()
