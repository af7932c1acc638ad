"""Layers that no image names any more leave the repository; none that one names, or is about to, ever does."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from harness.processes import wait_until
from harness.s3 import S3Access, s3_client
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import sidecar_path
from services.common.publisher_api import PublisherRefusedError
from services.repository.directory.transaction import DirectoryTransaction
from tests.support.image_site import ImagePublisher, layer_of, push_image, sha256
from tests.support.publisher import TOKEN, make_layer, upload
from tests.support.registries import RegistryServer
from tests.support.registry_faults import Fault, FaultyRegistry, held

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def publisher(tmp_path: Path) -> AsyncIterator[ImagePublisher]:
    """A publisher that collects at once what is named by nothing, when it is asked to."""
    async with ImagePublisher.running(
        tmp_path / "publisher", collect_after=0, collect_interval=0, keep_replaced=0
    ) as publisher:
        yield publisher


async def _collection(
    publisher: ImagePublisher, body: str | None = None, *, token: str | None = TOKEN, status: int = 200
) -> dict[str, Any]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    url = f"{publisher.url}/v1/collection"
    async with aiohttp.ClientSession(headers=headers) as session:
        request = session.get(url) if body is None else session.post(url, data=body)
        async with request as response:
            document: dict[str, Any] = await response.json()
            assert response.status == status, document
            return document


async def _collect(publisher: ImagePublisher, *, dry_run: bool = False) -> list[str]:
    document = await _collection(publisher, '{"dry_run": true}' if dry_run else '{"dry_run": false}')
    assert document["dry_run"] is dry_run
    return [layer["digest"] for layer in document["layers"]]


async def _replaced(registry: RegistryServer, publisher: ImagePublisher, tag: str, old: list[bytes]) -> ImageName:
    """Have an image published, and replaced by one that has the first of its layers only."""
    name = await push_image(registry, tag, old)
    first = await publisher.published(name)
    await push_image(registry, tag, old[:1])
    await publisher.ask(name)
    await publisher.replaced(name, first)
    return name


async def test_what_no_image_names_is_collected(registry: RegistryServer, publisher: ImagePublisher) -> None:
    shared, old, other = layer_of("collected shared"), layer_of("collected old"), layer_of("collected other")
    name = await _replaced(registry, publisher, "collected:1", [shared, old, other])
    await publisher.published(await push_image(registry, "collected-too:1", [other]))
    assert await _collect(publisher, dry_run=True) == [sha256(old)]
    assert publisher.has(shared, old, other) == [True, True, True]
    shown = await _collection(publisher, token=None)
    assert shown["last"] is None
    assert shown["unnamed"]["layers"] == 1
    assert await _collect(publisher) == [sha256(old)]
    assert publisher.has(shared, old, other) == [True, False, True]
    assert await _collect(publisher) == []
    shown = await _collection(publisher, token=None)
    metrics = [
        await publisher.metric("publisher_collections_total", outcome="done"),
        await publisher.metric("publisher_collected_layers_total"),
        await publisher.metric("publisher_last_collection_timestamp_seconds") > 0,
    ]
    assert metrics == [2, 1, True]
    assert (shown["after"], shown["limit"], shown["unnamed"]) == (0, 1000, {"layers": 0, "bytes": 0})
    former = (await publisher.api.versions(name))[1]
    assert former.collected_at is not None
    with pytest.raises(PublisherRefusedError):
        await publisher.api.restore(name, Digest(former.digest.removeprefix("sha256:")))
    # It can come back from its registry.
    await publisher.published(await push_image(registry, "collected-again:1", [old]))
    assert publisher.has(old) == [True]
    assert await _collect(publisher) == []


async def test_an_image_that_is_asked_for_during_a_collection_is_whole(
    registry: RegistryServer, publisher: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, old = layer_of("race shared"), layer_of("race old")
    await _replaced(registry, publisher, "race:1", [shared, old])
    name = await push_image(registry, "race-new:1", [shared, old])
    reached, released = asyncio.Event(), asyncio.Event()
    remove = DirectoryTransaction.remove_layer

    async def slow(transaction: DirectoryTransaction, digest: Digest) -> None:
        reached.set()
        await released.wait()
        await remove(transaction, digest)

    monkeypatch.setattr(DirectoryTransaction, "remove_layer", slow)
    collecting = asyncio.create_task(_collect(publisher))
    try:
        await reached.wait()
        await publisher.ask(name)
        await publisher.becomes(name, "fetching")
    finally:
        released.set()
    assert await collecting == [sha256(old)]
    await publisher.becomes(name, "published")
    assert publisher.has(shared, old) == [True, True]


async def test_collections_are_for_whoever_has_the_token(publisher: ImagePublisher) -> None:
    await _collection(publisher, '{"dry_run": true}', token=None, status=401)
    for body in (
        '{"dry_run": true, "commits": ["sha256:1"]}',
        "",
        "{}",
        '{"dry_run": 1.5}',
        '{"dry_run": true, "more": 1}',
        "[" * 2000,
    ):
        await _collection(publisher, body, status=400)
    await _collection(publisher, " " * 200_000, status=413)


async def test_nothing_is_collected_while_publishing_is_paused(
    registry: RegistryServer, publisher: ImagePublisher
) -> None:
    layers = [layer_of("paused shared"), layer_of("paused old")]
    await _replaced(registry, publisher, "paused:1", layers)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as session:
        await session.post(f"{publisher.url}/v1/publishing/pause", json={"reason": "a test"})
        assert await _collect(publisher, dry_run=True) == [sha256(layers[1])]
        answer = await _collection(publisher, '{"dry_run": false}', status=409)
        assert answer["error"].startswith("publishing is paused")
        assert publisher.has(*layers) == [True, True]
        assert await publisher.metric("publisher_collections_total", outcome="postponed") == 1
        await session.post(f"{publisher.url}/v1/publishing/resume")
    assert await _collect(publisher) == [sha256(layers[1])]


async def test_collections_come_by_themselves_and_take_no_more_than_they_may(
    registry: RegistryServer, tmp_path: Path
) -> None:
    layers = [layer_of(f"by itself {number}") for number in range(3)]
    async with ImagePublisher.running(
        tmp_path / "publisher", collect_after=0, collect_interval=0.2, collect_limit=1, keep_replaced=0
    ) as publisher:
        await _replaced(registry, publisher, "by-itself:1", layers)

        async def gone() -> bool:
            return publisher.has(*layers) == [True, False, False]

        await wait_until(gone, what="the layers are collected")
        shown = await _collection(publisher)
        assert len(shown["last"]["layers"]) <= 1


async def test_a_layer_of_a_commit_goes_only_when_an_operator_names_it(
    registry: RegistryServer, tmp_path: Path, bucket: S3Access
) -> None:
    committed, named = make_layer(tmp_path, "committed"), make_layer(tmp_path, "named too")
    await upload(bucket, committed, named)
    async with ImagePublisher.running(
        tmp_path / "publisher", store=bucket.settings, collect_after=0, collect_interval=0, sweep_interval=3600
    ) as publisher:
        digests = [committed.digest, named.digest]

        async def published() -> bool:
            return all((publisher.root / sidecar_path(digest)).exists() for digest in digests)

        await wait_until(published, what="the layers are published")
        name = await push_image(registry, "committed:1", [named.path.read_bytes()])
        await publisher.published(name)
        kept = {
            layer.digest: layer.reason for layer in (await publisher.api.collect(dry_run=True, commits=digests)).kept
        }
        assert "an image names it" in kept[named.digest]
        assert f"remove its archive sha256/{committed.digest} from the bucket first" in kept[committed.digest]
        async with s3_client(bucket) as client:
            for digest in digests:
                await client.delete_object(Bucket=bucket.bucket, Key=f"sha256/{digest}")
        assert (await publisher.api.collect(dry_run=False)).layers == ()
        for dry_run in (True, False):
            assert await published()
            done = await publisher.api.collect(dry_run=dry_run, commits=digests)
            assert [layer.digest for layer in done.layers] == [committed.digest]
        assert not (publisher.root / sidecar_path(committed.digest)).exists()
        assert (publisher.root / sidecar_path(named.digest)).exists()
        found = [(finding["digest"], finding["kind"]) for finding in await publisher.disagreements()]
        assert found == [(named.digest, "archive_gone")]


async def _turn(publisher: ImagePublisher, word: str) -> None:
    """Pause or resume publishing."""
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
        session.post(f"{publisher.url}/v1/publishing/{word}") as answer,
    ):
        assert answer.ok


async def test_layers_of_images_that_failed_when_these_had_been_added_are_collected_unless_they_come_to_be_named(
    registry: RegistryServer, publisher: ImagePublisher
) -> None:
    released = asyncio.Event()
    layers = [layer_of(f"added and not named {number}") for number in range(3)]
    fault = Fault(f"GET .*/blobs/sha256:({'|'.join(map(sha256, layers))})", held(released), times=100)
    async with FaultyRegistry.before(registry.address, fault) as proxy:
        good, later, never = names = [
            proxy.named(await push_image(registry, f"stray{number}:1", [layer])) for number, layer in enumerate(layers)
        ]
        foreign = [publisher.root / ".metadata" / name.path for name in (later, never)]
        foreign[0].parent.mkdir(parents=True)
        for path in foreign:
            path.touch()
        for name in names:
            await publisher.ask(name)
            await publisher.becomes(name, "fetching")
        await _turn(publisher, "pause")  # so that they get ready for one transaction
        released.set()
        for name in names:
            await publisher.becomes(name, "ready")
        await _turn(publisher, "resume")
        await publisher.becomes(good, "published")
        for name in (later, never):
            assert "not this suite's" in str((await publisher.becomes(name, "failed")).reason)
        assert publisher.has(*layers) == [True, True, True]
        assert await _collect(publisher) == []  # both are tried again
        foreign[0].unlink()
        await publisher.becomes(later, "published")
        await publisher.api.remove(never)
        await publisher.becomes(never, "removed")
        assert await _collect(publisher) == [sha256(layers[2])]
        assert publisher.has(*layers) == [True, True, False]
