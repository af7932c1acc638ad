"""Several publishers of one repository in a bucket: none waits longer than it must, and none harms what others did."""

import asyncio
import os
import signal
import time
from contextlib import closing
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from harness.s3 import S3Access
from services.common.archive.model import LayerArchive
from services.common.together import all_of
from services.repository.errors import LayerAdditionError
from services.repository.native.access import RepositoryAccess
from services.repository.native.collection.collector import Collector
from services.repository.native.collection.retention import Retention
from services.repository.native.records import MANIFEST, REFLOG
from services.repository.native.removal import remove_layers
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.writer.index import ContentIndex
from tests.repository.native.conftest import NAME
from tests.support.bucket_site import BucketSite
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.native import publish, tar_archive
from tests.support.publisher import verified
from tests.support.publishers import publish_as
from tests.support.tars import archive, member


def make(directory: Path, *names: str) -> LayerArchive:
    """Make a layer of files whose content is their name."""
    return tar_archive(directory, archive(*(member(name.encode(), name.encode() * 500) for name in names)))


@pytest.fixture
async def first(bucket: S3Access, keys: KeyFiles, tmp_path: Path) -> BucketSite:
    """A new repository, and the first machine that publishes into it."""
    site = BucketSite(access=bucket, keys=keys, state=tmp_path / "first")
    await asyncio.to_thread(site.create)
    return site


def another(site: BucketSite, name: str) -> BucketSite:
    return replace(site, state=site.state.with_name(name))


def collect(site: BucketSite, *, later: float) -> int:
    """Collect on a site's machine, so many seconds from now; return how many objects were deleted."""
    with site.storage() as storage, closing(ContentIndex(site.state / "index.sqlite")) as index:
        access = RepositoryAccess.open(name=NAME, storage=storage, keys=site.keys)
        collector = Collector(
            access=access,
            retention=Retention(revisions=1, days=0),
            forget=index.forget,
            patience=60,
            clock=lambda: time.time() + later,
        )
        return collector.collect().objects


def remove(site: BucketSite, layer: LayerArchive) -> None:
    with site.storage() as storage:
        access = RepositoryAccess.open(name=NAME, storage=storage, keys=site.keys)
        remove_layers(access, [layer.digest], state=None)


async def test_what_another_machine_has_collected_is_known_no_more(first: BucketSite, tmp_path: Path) -> None:
    second = another(first, "second")
    gone, whole, late = make(tmp_path, "gone"), make(tmp_path, "gone", "1"), make(tmp_path, "gone", "2")
    again = make(tmp_path, "gone", "3")
    async with first.opened() as here, second.opened() as there:
        assert await publish(here, make(tmp_path, "a", "b")) == 2
        assert await publish(there, gone) == 3
        prepared = await there.prepare(verified(whole))
        assert await asyncio.to_thread(collect, first, later=0) == 0
        async with there.transaction("token") as transaction:
            await transaction.add(prepared)  # it is looked for, and is there
            assert await transaction.publish() == 4
        await there.discard(prepared)
        await asyncio.to_thread(remove, first, gone)
        await asyncio.to_thread(remove, first, whole)
        prepared = await there.prepare(verified(late))
        for name in ("c", "d"):  # so that not even the undo target has what was removed
            await publish(here, make(tmp_path, name))
        assert await asyncio.to_thread(collect, first, later=365 * 86400) > 0
        async with there.transaction("token") as transaction:
            with pytest.raises(LayerAdditionError, match="collected since it was prepared"):
                await transaction.add(prepared)
        await there.discard(prepared)
        assert await publish(there, again) == 9
        assert await publish(here, make(tmp_path, "b", "e")) == 10
    assert await asyncio.to_thread(second.read, again, "gone") == b"gone" * 500
    assert await asyncio.to_thread(first.problems) == []


async def test_five_machines_publish_at_once(first: BucketSite, tmp_path: Path, processes: ForkServerContext) -> None:
    sites = [another(first, str(number)) for number in range(5)]
    layers = [make(tmp_path, "common", str(number)) for number in range(5)]
    answers = [start(processes, site, [layer])[1] for site, layer in zip(sites, layers, strict=True)]
    results = await asyncio.gather(*(asyncio.to_thread(answer.recv) for answer in answers))
    assert len({revision for revision, _ in results}) == 5
    for number, layer in enumerate(layers):
        assert await asyncio.to_thread(first.read, layer, str(number)) == b"%d" % number * 500
    assert await asyncio.to_thread(first.problems) == []
    assert await asyncio.to_thread(first.faults_of_reflog) == []


def start(processes: ForkServerContext, site: BucketSite, layers: list[LayerArchive]) -> tuple[BaseProcess, Connection]:
    answer, answers = processes.Pipe(duplex=False)
    process = processes.Process(target=publish_as, args=(site, layers, answers), daemon=False)
    process.start()
    answers.close()
    return process, answer


async def test_one_that_was_stopped_while_it_wrote_the_head_goes_on_behind_the_others(
    bucket: S3Access, keys: KeyFiles, tmp_path: Path, processes: ForkServerContext
) -> None:
    """Stopped or killed, its last request on its way: that arrives when another one has taken over and published."""

    async def at(number: int, step: str, *, kill: bool) -> None:
        directory = tmp_path / str(number)
        directory.mkdir()
        one, two = make(directory, "a", "b"), make(directory, "b", "c")
        site = BucketSite(access=bucket, keys=keys, state=directory / "one", prefix=f"{number}/")
        await asyncio.to_thread(site.create)
        arrived, overtaken = asyncio.Event(), asyncio.Event()

        async def held(_position: int, data: bytes) -> bytes:
            arrived.set()
            await overtaken.wait()
            return data

        async with FaultProxy.before(bucket.endpoint, Fault(step, head=held)) as proxy:
            through = replace(site, access=replace(bucket, endpoint=proxy.endpoint), retry_seconds=1, lease_seconds=6)
            process, answer = await asyncio.to_thread(start, processes, through, [one])
            async with asyncio.timeout(300):
                await arrived.wait()
            os.kill(process.pid or 0, signal.SIGKILL if kill else signal.SIGSTOP)
            async with another(site, "two").opened() as repository:
                await publish(repository, two)
                assert await repository.lookup(one.digest) is None
            overtaken.set()
            if not kill:
                os.kill(process.pid or 0, signal.SIGCONT)
                _, lost = await asyncio.to_thread(answer.recv)
                assert lost
            await asyncio.to_thread(process.join)
        async with site.opened() as repository:
            if kill:
                await publish(repository, one)
        assert await asyncio.to_thread(site.read, one, "a") == b"a" * 500
        assert await asyncio.to_thread(site.read, two, "c") == b"c" * 500
        assert await asyncio.to_thread(site.root_files) == {MANIFEST, REFLOG}
        assert await asyncio.to_thread(site.faults_of_reflog) == []
        assert await asyncio.to_thread(site.problems) == []

    await all_of([at(0, "^POST .*delete", kill=True), at(1, "^PUT .*cvmfspublished", kill=False)])
