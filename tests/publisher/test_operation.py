"""What operators do to a publisher that works: pause it, resume it, sweep at once."""

import time
from datetime import datetime
from pathlib import Path

import aiohttp
import pytest

from harness.processes import wait_until
from harness.s3 import S3Access
from tests.support.cvmfs_server.standin import StandIn
from tests.support.notifications import ceph_event
from tests.support.publisher import REPOSITORY, TOKEN, PublisherProcess, cvmfs_publisher, make_layer, upload

_BEARER = {"Authorization": f"Bearer {TOKEN}"}


async def _post(publisher: PublisherProcess, path: str, body: bytes = b"") -> dict[str, object]:
    async with (
        aiohttp.ClientSession(headers=_BEARER) as session,
        session.post(f"{publisher.url}{path}", data=body) as response,
    ):
        assert response.ok, await response.text()
        document: dict[str, object] = await response.json()
        return document


async def test_a_paused_publisher_begins_nothing_and_a_restart_does_not_change_that(
    publisher: PublisherProcess, bucket: S3Access, tmp_path: Path
) -> None:
    archive = make_layer(tmp_path, "one")
    async with publisher.running():
        await _post(publisher, "/v1/publishing/pause", b'{"reason": "a new disk"}')
        await upload(bucket, archive)
        assert await publisher.announce(ceph_event(bucket.bucket, f"sha256/{archive.digest}")) == 204
        assert (await publisher.layer(archive.digest))["state"] == "announced"
    async with publisher.running():
        # The sweep at start has looked at everything, and the pipeline has had its chance to begin.
        async def swept() -> bool:
            status = await publisher.get("/v1/status")
            return bool(status["sweep"]["ended"]) and status["waiting_for"] == "publishing is paused: a new disk"

        await wait_until(swept, what="the publisher is up")
        assert (await publisher.layer(archive.digest))["state"] == "announced"
        assert (await publisher.metrics())["publisher_paused"] == 1
        await _post(publisher, "/v1/publishing/resume")
        await publisher.published(archive)
        layer = await publisher.layer(archive.digest)
        assert (layer["archive_size"], layer["tree_size"]) == (archive.size, len("one"))
        assert (await publisher.metrics())["publisher_oldest_unpublished_seconds"] == 0


async def test_what_is_in_a_transaction_is_finished_and_what_is_ready_waits(
    bucket: S3Access, standin: StandIn, tmp_path: Path
) -> None:
    publisher = cvmfs_publisher(tmp_path / "publisher", bucket, standin, batch_layers="1")
    one, two = make_layer(tmp_path, "one"), make_layer(tmp_path, "two")
    await upload(bucket, one, two)
    standin.want("hang.publish.sync")
    async with publisher.running():
        await standin.reached("publish.sync")
        for archive in (one, two):
            await publisher.becomes(archive.digest, "publishing", "verified")
        status = await _post(publisher, "/v1/publishing/pause")
        transaction = status["transaction"]
        assert isinstance(transaction, dict)
        assert (transaction["stage"], transaction["added"], transaction["bytes"]) == ("publishing", 1, 3)
        assert (await publisher.metrics())["publisher_transaction_seconds"] > 0
        first, second = (one, two) if transaction["layers"] == [one.digest] else (two, one)
        standin.no_longer("hang.publish.sync")
        await publisher.published(first)

        async def idle() -> bool:
            return (await publisher.get("/v1/status"))["transaction"] is None

        await wait_until(idle, what="the transaction has ended")
        assert (await publisher.layer(second.digest))["state"] == "verified"
        assert standin.revision == 2
        await _post(publisher, "/v1/publishing/resume")
        await publisher.published(second)
        assert standin.revision == 3


async def test_a_sweep_that_is_asked_for_begins_at_once(bucket: S3Access, tmp_path: Path) -> None:
    publisher = PublisherProcess(tmp_path / "publisher", bucket, {"PUBLISHER_SWEEP_INTERVAL": "3600"})
    archive = make_layer(tmp_path, "one")
    async with publisher.running():

        async def ended(number: object) -> bool:
            return bool((await publisher.get("/v1/status"))["sweep"]["ended"] == number)

        await wait_until(lambda: ended(1), what="the first sweep has ended")
        await upload(bucket, archive)
        number = (await _post(publisher, "/v1/sweep"))["sweep"]
        assert number == 2
        await wait_until(lambda: ended(number), what="the sweep has ended")
        sweep = (await publisher.get("/v1/status"))["sweep"]
        assert (sweep["begun"], sweep["found"], sweep["error"]) == (2, 1, None)
        await publisher.published(archive)


async def test_a_whitelist_that_expires_is_told(bucket: S3Access, standin: StandIn, tmp_path: Path) -> None:
    standin.want("whitelist", "Whitelist is valid for another 3 days")
    publisher = cvmfs_publisher(tmp_path / "publisher", bucket, standin)
    metric = f'publisher_whitelist_expiry_timestamp_seconds{{repository="{REPOSITORY}"}}'
    async with publisher.running():

        async def known() -> bool:
            return metric in await publisher.metrics()

        await wait_until(known, what="the whitelist is known")
        days = ((await publisher.metrics())[metric] - time.time()) / 86400
        assert 2.9 < days <= 3
        until = datetime.fromisoformat((await publisher.get("/v1/status"))["trusted_until"])
        assert until.timestamp() == pytest.approx((await publisher.metrics())[metric], abs=0.01)
