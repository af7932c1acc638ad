"""Real object stores announce real uploads to a publisher process."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.ceph import CephRGW
from harness.processes import wait_until
from harness.seaweedfs import SeaweedFS
from tests.support.publisher import TOKEN, PublisherProcess, make_layer, upload

_NO_SWEEP = {"PUBLISHER_SWEEP_INTERVAL": "3600"}
"""The sweep at start only, so that nothing but a notification can announce what is uploaded later."""


async def test_seaweedfs_announces_and_the_sweep_finds_what_was_lost(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = SeaweedFS(tmp_path_factory.mktemp("s3"))  # the path of a socket must be short
    publisher = PublisherProcess(
        tmp_path / "publisher", store.access, {**_NO_SWEEP, "LAYER_STORE_RETRY_SECONDS": "0.1"}
    )
    one, two, lost = (make_layer(tmp_path, name) for name in ("one", "two", "lost"))
    try:
        # The store is down when the publisher starts: it says so, and waits.
        async with publisher.running():
            ready = await publisher.get("/readyz")
            assert ready["ready"] is False
            assert store.endpoint in ready["checks"]["store"]
            store.announce_to(f"{publisher.url}/v1/events", TOKEN)
            await store.start()
            ready = await publisher.get("/readyz")
            assert (ready["ready"], set(ready["checks"].values())) == (True, {"ok"})
            swept = lambda: _swept(publisher)  # noqa: E731 - a condition
            await wait_until(swept, what="the sweep at start is over")
            await upload(store.access, one)
            assert await publisher.published(one) == [1]
            await upload(store.access, two)
            while not (publisher.root / two.digest / "name").exists():  # noqa: ASYNC110 - this is what a reader does
                await asyncio.sleep(0.001)
            assert await _recorded(publisher, 2)
            assert (await publisher.metrics())["publisher_sweep_found_total"] == 0
        await upload(store.access, lost)
        async with publisher.running():
            assert await publisher.published(lost) == [3]
    finally:
        await store.kill()


async def _swept(publisher: PublisherProcess) -> bool:
    return (await publisher.metrics())["publisher_last_sweep_timestamp_seconds"] > 0


async def _recorded(publisher: PublisherProcess, least: int) -> bool:
    metrics = await publisher.metrics()
    return metrics.get('publisher_notifications_total{outcome="recorded"}', 0) >= least


@pytest.fixture
async def ceph(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[CephRGW]:
    """A gateway of this module's own: the shared one's persistent topic has been used up by the harness's tests."""
    server = CephRGW(tmp_path_factory.mktemp("rgw"))
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


async def test_ceph_announces_plainly_and_persistently(ceph: CephRGW, tmp_path: Path) -> None:
    publisher = PublisherProcess(tmp_path / "publisher", ceph.access, _NO_SWEEP)
    hook = f"{publisher.url}/v1/events?token={TOKEN}"
    await ceph.announce_uploads([await ceph.plain_topic(hook)])
    one, two, three = (make_layer(tmp_path, name) for name in ("one", "two", "three"))
    async with publisher.running():
        await wait_until(lambda: _swept(publisher), what="the sweep at start is over")
        await upload(ceph.access, one)
        await publisher.published(one)
    # From here on the publisher is down while a layer is uploaded; the gateway repeats what nobody took.
    await ceph.announce_uploads([await ceph.persistent_topic(hook)])
    await upload(ceph.access, two)
    async with publisher.running():
        # The sweep at start may have found the layer first; the notification comes nevertheless.
        await wait_until(lambda: _recorded(publisher, 1), what="the missed notification is repeated")
        await publisher.published(two)
        await upload(ceph.access, three)
        await wait_until(lambda: _recorded(publisher, 2), what="the next one comes")
        await publisher.published(three)
        assert 'publisher_notifications_total{outcome="refused"}' not in await publisher.metrics()
