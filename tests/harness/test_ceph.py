import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from harness.ceph import CephRGW
from harness.s3 import s3_client
from tests.support.webhook import Received, Webhook

KEY = "sha256/" + "c" * 64

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
async def quiet_afterwards(ceph: CephRGW) -> AsyncIterator[CephRGW]:
    """The gateway, which announces nothing again when the test is over."""
    yield ceph
    await ceph.announce_uploads([])


async def put(server: CephRGW, key: str) -> None:
    async with s3_client(server.access) as client:
        await client.put_object(Bucket=server.bucket, Key=key, Body=b"layer", Metadata={"repository": "test.cern.ch"})


def names(event: Received) -> tuple[str, str]:
    (record,) = json.loads(event.body)["Records"]
    assert record["eventSource"] == "ceph:s3"
    return record["eventName"], record["s3"]["object"]["key"]


async def test_a_plain_topic_announces_layers_and_nothing_else(quiet_afterwards: CephRGW) -> None:
    async with Webhook.listen() as webhook:
        topic = await quiet_afterwards.plain_topic(f"{webhook.url}/v1/events?token=t")
        await quiet_afterwards.announce_uploads([topic])

        await put(quiet_afterwards, "other")
        await put(quiet_afterwards, KEY)

        event = await webhook.next()
        assert event.path == "/v1/events?token=t"
        assert names(event) == ("ObjectCreated:Put", KEY)
        assert webhook.received.empty()


async def test_a_persistent_topic_keeps_events_until_they_are_taken(quiet_afterwards: CephRGW) -> None:
    async with Webhook.listen() as webhook:
        port = int(webhook.url.rpartition(":")[2])
        topic = await quiet_afterwards.persistent_topic(f"{webhook.url}/v1/events")
        await quiet_afterwards.announce_uploads([topic])

        webhook.refusals = 3
        await put(quiet_afterwards, KEY)
        first = await webhook.next()
        assert names(first) == ("ObjectCreated:Put", KEY)

    await put(quiet_afterwards, KEY + "-while-nobody-listens")

    async with Webhook.listen(port) as webhook:
        assert names(await webhook.next()) == ("ObjectCreated:Put", KEY + "-while-nobody-listens")


async def test_announcing_replaces_what_was_announced_before(quiet_afterwards: CephRGW) -> None:
    async with Webhook.listen() as first, Webhook.listen() as second:
        await quiet_afterwards.announce_uploads([await quiet_afterwards.persistent_topic(first.url)])
        await quiet_afterwards.announce_uploads([await quiet_afterwards.plain_topic(second.url)])

        await put(quiet_afterwards, KEY)

        await second.next()
        assert first.received.empty()


async def test_a_stopped_cluster_leaves_no_process(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("cluster")
    server = CephRGW(directory)
    await server.start()

    await server.stop()

    listing = await asyncio.create_subprocess_exec(*("pgrep", "-f", str(directory)), stdout=asyncio.subprocess.PIPE)
    assert (await listing.communicate())[0] == b""
