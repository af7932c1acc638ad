"""A publisher process and `cvmfs_server`: foreign transactions, poison, hangs, and kills at every point."""

import asyncio
from pathlib import Path

from harness.processes import wait_until
from harness.s3 import S3Access
from services.common.archive.model import LayerArchive
from tests.support.cvmfs_server.standin import StandIn
from tests.support.notifications import ceph_event
from tests.support.publisher import REPOSITORY, cvmfs_publisher, make_layer, upload

_POINTS = (
    "transaction.begin",
    "transaction.flagged",
    "transaction.opened",
    "publish.begin",
    "publish.sync",
    "publish.committed",
    "publish.unmounted",
    "publish.mounted",
    "publish.hook",
    "publish.closed",
)


def _names(standin: StandIn, *archives: LayerArchive) -> list[str]:
    return [(standin.published / archive.digest / "name").read_text() for archive in archives]


async def test_a_foreign_transaction_is_waited_for(bucket: S3Access, standin: StandIn, tmp_path: Path) -> None:
    publisher = cvmfs_publisher(tmp_path / "publisher", bucket, standin)
    one, two = make_layer(tmp_path, "one"), make_layer(tmp_path, "two")
    async with publisher.running():
        standin.run("transaction", REPOSITORY)
        (standin.area / "somebody's").touch()
        await upload(bucket, one)
        await publisher.announce(ceph_event(bucket.bucket, f"sha256/{one.digest}"))

        async def waiting() -> bool:
            return (await publisher.metrics())["publisher_foreign_transaction_seconds"] > 0.3

        await wait_until(waiting, what="the publisher waits")
        ready = await publisher.get("/readyz")
        assert ready["waiting_for"] == "somebody else has a transaction of test.cern.ch open"
        assert (await publisher.layer(one.digest))["state"] == "verified"
        # What comes meanwhile is fetched and prepared, and goes into the same transaction.
        await upload(bucket, two)
        await publisher.announce(ceph_event(bucket.bucket, f"sha256/{two.digest}"))
        await publisher.becomes(two.digest, "verified")
        assert (standin.area / "somebody's").exists()
        standin.run("publish", REPOSITORY)
        assert await publisher.published(one, two) == [3, 3]
        assert (await publisher.metrics())["publisher_foreign_transaction_seconds"] == 0
        assert (await publisher.get("/readyz"))["waiting_for"] is None
    assert (standin.published / "somebody's").exists()
    assert _names(standin, one, two) == ["one", "two"]


async def test_the_end_of_a_foreign_transaction_is_seen_at_once(
    bucket: S3Access, standin: StandIn, tmp_path: Path
) -> None:
    publisher = cvmfs_publisher(tmp_path / "publisher", bucket, standin, retry_first="600", retry_last="600")
    archive = make_layer(tmp_path, "one")
    await upload(bucket, archive)
    standin.run("transaction", REPOSITORY)
    async with publisher.running():

        async def waiting() -> bool:
            return (await publisher.get("/readyz"))["waiting_for"] is not None

        await publisher.becomes(archive.digest, "verified")
        await wait_until(waiting, what="the publisher waits")
        assert (await publisher.get("/v1/status"))["disks"].keys() == {"spool", "state", "cvmfs_spool", "storage"}
        standin.run("abort", "-f", REPOSITORY)
        await publisher.published(archive)


async def test_what_gets_ready_while_a_transaction_is_open_goes_along(
    bucket: S3Access, standin: StandIn, tmp_path: Path
) -> None:
    publisher = cvmfs_publisher(tmp_path / "publisher", bucket, standin)
    archives = [make_layer(tmp_path, str(number)) for number in range(40)]
    await upload(bucket, *archives)
    standin.want("hang.transaction.opened")
    async with publisher.running():
        await standin.reached("transaction.opened")

        async def ready() -> bool:
            states = (await publisher.get("/v1/status"))["layers"]
            return bool(states["verified"] + states["publishing"] == len(archives))

        await wait_until(ready, what="all are ready")
        standin.no_longer("hang.transaction.opened")
        assert set(await publisher.published(*archives)) == {2}
    assert _names(standin, *archives) == [*map(str, range(40))]


async def test_a_layer_that_makes_publishing_fail_is_isolated(
    bucket: S3Access, standin: StandIn, tmp_path: Path
) -> None:
    publisher = cvmfs_publisher(tmp_path / "publisher", bucket, standin)
    standin.want("poison", "poisonous")
    good = [make_layer(tmp_path, str(number)) for number in range(7)]
    poison = make_layer(tmp_path, "poison", {"poisonous": "", "name": "poison"})
    await upload(bucket, *good[:4], poison, *good[4:])
    async with publisher.running():
        await publisher.published(*good)
        layer = await publisher.becomes(poison.digest, "failed")
        assert "poisonous: cannot be added" in layer["reason"]
        assert layer["retryable"] is True
        assert {(await publisher.layer(archive.digest))["attempts"] for archive in good} == {0}
        standin.no_longer("poison")
        await publisher.published(poison)
    assert _names(standin, *good) == [str(number) for number in range(7)]


async def test_a_publish_that_hangs_is_killed_aborted_and_repeated(
    bucket: S3Access, standin: StandIn, tmp_path: Path
) -> None:
    publisher = cvmfs_publisher(tmp_path / "publisher", bucket, standin, cvmfs_publish_timeout="8")
    archive = make_layer(tmp_path, "one")
    await upload(bucket, archive)
    standin.want("hang.publish.sync")
    async with publisher.running():
        await standin.reached("publish.sync")
        layer = await publisher.becomes(archive.digest, "failed")
        assert "took longer than 8 s and was killed" in layer["reason"]
        assert layer["attempts"] >= 1
        assert standin.revision == 1
        standin.no_longer("hang.publish.sync")
        assert await publisher.published(archive) == [2]
    assert not standin.in_transaction


async def test_a_publisher_that_is_killed_at_any_point_publishes_when_it_is_started_again(
    bucket: S3Access, standin: StandIn, tmp_path: Path
) -> None:
    publisher = cvmfs_publisher(tmp_path / "publisher", bucket, standin)
    async with publisher.ended():
        await publisher.start()
        for number, point in enumerate(_POINTS):
            archive = make_layer(tmp_path, point)
            standin.want(f"hang.{point}")
            await upload(bucket, archive)
            await publisher.announce(ceph_event(bucket.bucket, f"sha256/{archive.digest}"))
            await standin.reached(point)
            await publisher.kill()
            # The program that it had started goes on, as after a real kill; the next publisher waits for it.
            await publisher.start()
            assert (await publisher.layer(archive.digest))["state"] in ("announced", "publishing")
            standin.no_longer(f"hang.{point}")
            await publisher.published(archive)
            assert (await publisher.get("/readyz"))["waiting_for"] is None
            assert _names(standin, archive) == [point]
            assert (standin.revision, standin.in_transaction) == (number + 2, False), point
        assert await publisher.daemon.stop() == 0


async def test_everything_can_be_killed_at_any_point(bucket: S3Access, standin: StandIn, tmp_path: Path) -> None:
    """Everything but the CVMFS client, which is a daemon."""
    publisher = cvmfs_publisher(tmp_path / "publisher", bucket, standin)
    async with publisher.ended():
        await publisher.start()
        for point in _POINTS:
            archive = make_layer(tmp_path, point)
            standin.want(f"hang.{point}")
            await upload(bucket, archive)
            await publisher.announce(ceph_event(bucket.bucket, f"sha256/{archive.digest}"))
            await standin.reached(point)
            await publisher.kill()
            await standin.kill_programs()
            standin.no_longer(f"hang.{point}")
            await publisher.start()
            await publisher.published(archive)
            assert _names(standin, archive) == [point]
            assert (standin.in_transaction, standin.healthy) == (False, True), point
            assert (await publisher.get("/readyz"))["ready"] is True
        assert await publisher.daemon.stop() == 0


async def test_a_machine_that_loses_power_while_it_publishes_starts_again(
    bucket: S3Access, standin: StandIn, tmp_path: Path
) -> None:
    publisher = cvmfs_publisher(tmp_path / "publisher", bucket, standin)
    archive = make_layer(tmp_path, "one")
    await upload(bucket, archive)
    standin.want("hang.publish.sync")
    async with publisher.ended():
        await publisher.start()
        await standin.reached("publish.sync")
        await publisher.kill()
        await standin.kill_programs()
        standin.lose_mounts()
        assert standin.in_transaction
        async with publisher.running():
            standin.no_longer("hang.publish.sync")
            assert await publisher.published(archive) == [2]
        assert not standin.in_transaction


async def test_a_publisher_that_is_told_to_stop_lets_a_publish_end(
    bucket: S3Access, standin: StandIn, tmp_path: Path
) -> None:
    publisher = cvmfs_publisher(tmp_path / "publisher", bucket, standin)
    archive = make_layer(tmp_path, "one")
    await upload(bucket, archive)
    standin.want("hang.publish.sync")
    async with publisher.ended():
        await publisher.start()
        await standin.reached("publish.sync")
        stopping = asyncio.create_task(publisher.daemon.stop())
        await wait_until(lambda: asyncio.sleep(0, '"stopping"' in publisher.daemon.tail()), what="the publisher stops")
        standin.no_longer("hang.publish.sync")
        assert await stopping == 0
        assert _names(standin, archive) == ["one"]
        assert not standin.in_transaction
        async with publisher.running():
            await publisher.published(archive)
        assert standin.revision == 2
