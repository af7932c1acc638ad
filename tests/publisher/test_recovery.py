"""A publisher to a directory that is killed at any moment loses nothing and shows nothing half."""

import asyncio
import contextlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

from harness.processes import wait_until
from harness.s3 import S3Access
from services.common.archive.model import LayerArchive
from services.common.layout import layer_home, sidecar_path
from services.publisher.journal.journal import Journal
from services.publisher.journal.sqlite import SqliteDatabase
from tests.support.fault_proxy import Fault, FaultProxy, stall
from tests.support.notifications import ceph_event
from tests.support.publisher import PublisherProcess, make_layer, upload

_LAYERS = 80
_FILES = 10
_KILLS = 4


def _layers(tmp_path: Path) -> list[LayerArchive]:
    return [
        make_layer(tmp_path, str(number), {f"file-{file}": f"{number}" for file in range(_FILES)})
        for number in range(_LAYERS)
    ]


def _check_what_is_visible(root: Path, archives: list[LayerArchive]) -> int:
    """Whatever a reader can see must be whole; return how many layers that are."""
    visible = [archive for archive in archives if (root / sidecar_path(archive.digest)).exists()]
    batches: dict[str, set[str]] = {}
    for archive in visible:
        number = str(archives.index(archive))
        tree = root / archive.digest
        assert {(tree / name).read_text() for name in os.listdir(tree)} == {number}
        assert len(os.listdir(tree)) == _FILES
        assert json.loads((root / sidecar_path(archive.digest)).read_bytes())["digest"] == archive.digest
        batches.setdefault((root / layer_home(archive.digest)).readlink().parts[-2], set()).add(archive.digest)
    # All of a batch, or none of it.
    for revision, digests in batches.items():
        assert digests == {entry.name for entry in (root / ".batches" / revision).glob("[0-9a-f]" * 64)}
    return len(visible)


async def test_kills_in_the_middle_of_batches_lose_and_show_nothing(bucket: S3Access, tmp_path: Path) -> None:
    publisher = PublisherProcess(tmp_path / "publisher", bucket, {"PUBLISHER_BATCH_LAYERS": "2"})
    archives = _layers(tmp_path)
    await upload(bucket, *archives)
    batches = publisher.root / ".batches"

    async def spool_is_empty() -> bool:
        return os.listdir(publisher.spool) == []

    progress = [0]
    async with publisher.ended():
        # On a busy machine the test may sleep through many of the batches.
        while progress[-1] < _LAYERS and len(progress) <= _KILLS:
            # Not even until it answers, by when it may have published everything.
            await publisher.daemon.start(_at_once)
            await _batches_are_being_published(batches)
            await publisher.kill()
            progress.append(_check_what_is_visible(publisher.root, archives))
        assert progress == sorted(progress)
        assert progress[1] < _LAYERS, "no kill came before everything was published"
        async with publisher.running():
            await publisher.published(*archives)
            await wait_until(spool_is_empty, what="the archives of published layers go")
        assert _check_what_is_visible(publisher.root, archives) == _LAYERS
        assert [name for name in os.listdir(batches) if name.startswith((".staging", ".prepared"))] == []


async def _at_once() -> bool:
    return True


async def _batches_are_being_published(batches: Path) -> None:
    """Wait for a batch that is being staged, or for another one that has just been published."""

    def published() -> int:
        return sum(path.name.isdecimal() for path in batches.iterdir()) if batches.exists() else 0

    def staged() -> bool:
        try:
            return any(batches.glob(".staging-*/*"))
        except FileNotFoundError:
            return True  # published while it was looked at

    before = published()
    # A batch takes milliseconds, so nobody may sleep meanwhile.
    async with asyncio.timeout(300):
        while published() == before and not staged():  # noqa: ASYNC110 - there is nothing to await
            await asyncio.sleep(0)


async def test_an_event_that_was_answered_survives_a_kill(bucket: S3Access, tmp_path: Path) -> None:
    # No sweep can help: the object is uploaded after the last one.
    publisher = PublisherProcess(tmp_path / "publisher", bucket, {"PUBLISHER_SWEEP_INTERVAL": "3600"})
    archive = make_layer(tmp_path, "one")
    async with publisher.ended():
        await publisher.start()
        assert await publisher.announce(ceph_event(bucket.bucket, f"sha256/{archive.digest}")) == 204
        await publisher.kill()
        async with publisher.running():
            await publisher.becomes(archive.digest, "failed")
            await upload(bucket, archive)
            await publisher.published(archive)


async def _left_verified(publisher: PublisherProcess, archive: LayerArchive) -> None:
    """Leave what a publisher leaves that is killed between preparing a layer and publishing it."""
    publisher.state.mkdir(parents=True)
    async with Journal(SqliteDatabase(publisher.state / "journal.sqlite")) as journal:
        await journal.announce([archive.digest])
        await journal.claim()
        await journal.verified(archive.digest, archive_size=archive.size)
    publisher.spool.mkdir()
    shutil.copyfile(archive.path, publisher.spool / archive.digest)


async def test_a_verified_archive_is_not_fetched_again(bucket: S3Access, tmp_path: Path) -> None:
    publisher = PublisherProcess(tmp_path / "publisher", bucket)
    archive = make_layer(tmp_path, "one")
    await upload(bucket, archive)
    await _left_verified(publisher, archive)
    (publisher.spool / f".{archive.digest}.1234.part").touch()
    async with publisher.running():
        await publisher.published(archive)
        assert (await publisher.metrics())["publisher_fetched_bytes_total"] == 0
        assert f".{archive.digest}.1234.part" not in os.listdir(publisher.spool)


async def test_an_archive_that_was_damaged_in_the_spool_is_fetched_again(bucket: S3Access, tmp_path: Path) -> None:
    publisher = PublisherProcess(tmp_path / "publisher", bucket)
    archive = make_layer(tmp_path, "one")
    await upload(bucket, archive)
    await _left_verified(publisher, archive)
    with (publisher.spool / archive.digest).open("r+b") as file:
        file.seek(archive.size // 2)
        file.write(b"damaged")
    async with publisher.running():
        await publisher.published(archive)
        assert (await publisher.metrics())["publisher_fetched_bytes_total"] == archive.size


async def test_an_archive_that_had_not_arrived_is_fetched_again_from_its_beginning(
    bucket: S3Access, tmp_path: Path
) -> None:
    publisher = PublisherProcess(tmp_path / "publisher", bucket)
    archive = make_layer(tmp_path, "large", {"file": os.urandom(4 << 20)})
    await upload(bucket, archive)

    async def arriving() -> bool:
        for path in publisher.spool.glob(".*.part"):
            with contextlib.suppress(FileNotFoundError):  # it has arrived
                if path.stat().st_size > 1 << 20:
                    return True
        return False

    async with FaultProxy.before(
        bucket.endpoint, Fault("^GET /[^?]*sha256/", times=1000, response=stall(2 << 20))
    ) as proxy:
        slow = PublisherProcess(tmp_path / "publisher", replace(bucket, endpoint=proxy.endpoint))
        async with slow.ended():
            await slow.start()
            await wait_until(arriving, what="a part of the archive arrives")
            await slow.kill()
    async with publisher.running():
        await publisher.published(archive)
        assert not await arriving()
