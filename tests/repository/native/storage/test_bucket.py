"""A repository in a bucket of a real S3 server, with what networks and servers do to requests."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web

from harness.s3 import S3Access, s3_client
from services.common.object_store.bucket import Bucket
from services.repository.native.errors import (
    ObjectMissingError,
    OvertakenError,
    RepositoryBusyError,
    StorageError,
)
from services.repository.native.records import ContentHash, ObjectKind
from services.repository.native.storage.bucket import BucketStorage
from services.repository.native.storage.interface import NewObject
from services.repository.native.storage.lease import Lease
from services.repository.native.storage.settings import RepositoryStoreSettings
from tests.support.fault_proxy import Answer, Fault, FaultProxy, cut


def settings(access: S3Access, *, retry_seconds: float = 60, lease_seconds: int = 20) -> RepositoryStoreSettings:
    return access.repository_settings(
        prefix="cvmfs/", retry_seconds=retry_seconds, read_timeout=60, lease_seconds=lease_seconds
    )


def make(content: bytes, kind: ObjectKind = ObjectKind.FILE) -> NewObject:
    return NewObject(ContentHash.of(content).path(kind), content)


async def head(access: S3Access, key: str) -> dict[str, object]:
    async with s3_client(access) as client:
        return dict(await client.head_object(Bucket=access.bucket, Key=key))


async def test_objects_arrive_with_their_headers(bucket: S3Access, tmp_path: Path) -> None:
    file, catalog = make(b"content"), make(b"a catalog", ObjectKind.CATALOG)

    def work() -> None:
        with BucketStorage.connect(settings(bucket), tmp_path) as storage:
            storage.prepare()
            storage.put([file, catalog])
            assert list(storage.list("data/")) == []
            assert storage.read(file.path) == b"content"  # whoever has put it can read it
            storage.flush()
            assert not any(path.is_file() for path in storage.local.rglob("data/??/*"))
            assert {(found.path, found.size) for found in storage.list("data/")} == {
                (file.path, 7),
                (catalog.path, 9),
            }
            assert storage.read(catalog.path) == b"a catalog"
            with storage.exclusive():
                assert storage.version(".cvmfspublished") is None
                version = storage.exchange(".cvmfspublished", b"a manifest", None)
                assert version == storage.version(".cvmfspublished")
                for former in (None, '"5d41402abc4b2a76b9719d911017c592"'):
                    with pytest.raises(OvertakenError, match="changed by another publisher"):
                        storage.exchange(".cvmfspublished", b"not this", former)
                assert storage.look(".cvmfspublished") == (b"a manifest", version)
                storage.exchange(".cvmfspublished", b"another manifest", version)
            assert storage.read(".cvmfspublished") == b"another manifest"
            assert storage.size(".cvmfspublished") == 16
            assert storage.version(".cvmfspublished") not in (None, version)
            assert storage.size("data/00/nothing") is None
            with pytest.raises(ObjectMissingError, match=r"cvmfs/data/00/nothing"):
                storage.read("data/00/nothing")

    await asyncio.to_thread(work)
    manifest = await head(bucket, "cvmfs/.cvmfspublished")
    assert (manifest["CacheControl"], manifest["ContentType"]) == ("max-age=61", "application/x-cvmfs")
    stored = await head(bucket, f"cvmfs/{file.path}")
    assert (stored["CacheControl"], stored["ContentType"]) == ("max-age=259200", "application/octet-stream")
    assert "ContentEncoding" not in stored


async def test_large_objects_and_many(bucket: S3Access, tmp_path: Path) -> None:
    large = make(bytes(range(256)) * (40 << 10))  # 10 MB
    many = [make(b"object %d" % number) for number in range(1020)]
    source = tmp_path / "source"
    source.write_bytes(large.content)

    def work() -> None:
        with BucketStorage.connect(settings(bucket), tmp_path / "state") as storage:
            storage.put_file(large.path, source)
            storage.put(many)
            storage.flush()
            assert len(list(storage.list("data/"))) == 1021  # more than one page
            assert storage.read(large.path) == large.content
            with storage.exclusive():
                storage.delete([one.path for one in many] + ["data/00/never-there"])
            assert [found.path for found in storage.list("data/")] == [large.path]

    await asyncio.to_thread(work)


async def test_many_small_objects_are_on_their_way_at_a_time(bucket: S3Access, tmp_path: Path) -> None:
    """And no more than there are connections; with one request each, since nobody asks first what is there."""
    together = most = 0
    full = asyncio.Event()
    seen: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        nonlocal together, most
        seen.append(request.method)
        together += 1
        most = max(most, together)
        if together == 64:
            full.set()
        await full.wait()
        together -= 1
        return web.Response()

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    here = replace(bucket, endpoint=f"http://127.0.0.1:{runner.addresses[0][1]}")

    def work() -> None:
        with BucketStorage.connect(settings(here), tmp_path) as storage:
            storage.put([make(b"object %d" % number) for number in range(1000)])
            storage.flush()
            assert not any(path.is_file() for path in storage.local.rglob("data/??/*"))

    try:
        await asyncio.wait_for(asyncio.to_thread(work), 300)
    finally:
        full.set()
        await runner.cleanup()
    assert (most, seen) == (64, ["PUT"] * 1000)


async def test_catalogs_are_uploaded_after_their_content(bucket: S3Access, tmp_path: Path) -> None:
    async with FaultProxy.before(bucket.endpoint) as proxy:

        def work() -> None:
            through = replace(bucket, endpoint=proxy.endpoint)
            with BucketStorage.connect(settings(through), tmp_path) as storage:
                storage.put([make(b"%d" % number, ObjectKind.CATALOG) for number in range(40)])
                storage.put([make(b"%d" % number, ObjectKind.CHUNK) for number in range(40)])
                storage.flush()

        await asyncio.to_thread(work)
        kinds = [line.split()[1][-1] for line in proxy.requests if line.startswith("PUT ")]
    assert kinds == ["P"] * 40 + ["C"] * 40


@pytest.mark.parametrize(
    "fault",
    [
        Fault("^PUT .*/data/", times=3, answer=Answer(503, "SlowDown")),
        Fault("^PUT .*/data/", times=2, request=cut(2000)),
        Fault("^GET .*/data/", times=2, response=cut(300_000)),
        Fault("^GET .*list-type", times=1, answer=Answer(500, "InternalError")),
        Fault("^POST .*delete", times=1, answer=Answer(503, "ServiceUnavailable")),
        Fault("^PUT .*published", times=2, answer=Answer(500, "InternalError")),
        Fault("^PUT .*cvmfspublished", times=1, response=cut(0)),
        Fault("^PUT .*lease", times=1, response=cut(0)),
    ],
    ids=lambda fault: fault.matches,
)
async def test_failures_that_pass_are_met_by_repetition(bucket: S3Access, tmp_path: Path, fault: Fault) -> None:
    large = make(bytes(range(256)) * 8192)
    async with FaultProxy.before(bucket.endpoint, fault) as proxy:

        def work() -> None:
            through = replace(bucket, endpoint=proxy.endpoint)
            with BucketStorage.connect(settings(through), tmp_path) as storage, storage.exclusive():
                storage.put([large])
                storage.flush()
                storage.exchange(".cvmfspublished", b"manifest", None)
                assert storage.read(large.path) == large.content
                assert len(list(storage.list("data/"))) == 1
                storage.delete([large.path])
                assert storage.size(large.path) is None

        await asyncio.to_thread(work)
        assert fault.times == 0


async def test_the_head_does_not_wait_for_layers_that_are_being_prepared(bucket: S3Access, tmp_path: Path) -> None:
    content, catalog = make(b"of a layer"), make(b"a catalog", ObjectKind.CATALOG)

    def work() -> None:
        with BucketStorage.connect(settings(bucket), tmp_path) as storage:
            (storage.local / content.path).write_bytes(content.content)
            storage.put([catalog])
            storage.flush_put()
            assert [found.path for found in storage.list("data/")] == [catalog.path]
            storage.flush()
            assert {found.path for found in storage.list("data/")} == {content.path, catalog.path}

    await asyncio.to_thread(work)


async def test_what_could_not_be_uploaded_stays_staged(bucket: S3Access, tmp_path: Path) -> None:
    one = make(b"one")
    fault = Fault("^PUT .*/data/", times=10**6, answer=Answer(503, "SlowDown"))
    async with FaultProxy.before(bucket.endpoint, fault) as proxy:

        def work() -> None:
            through = replace(bucket, endpoint=proxy.endpoint)
            with BucketStorage.connect(settings(through, retry_seconds=0.5), tmp_path) as storage:
                storage.put([one])
                with pytest.raises(StorageError, match=r"overloaded: HTTP 503 SlowDown"):
                    storage.flush()
                assert storage.read(one.path) == b"one"
            with BucketStorage.connect(settings(bucket), tmp_path) as storage:
                storage.flush()
                assert [found.path for found in storage.list("data/")] == [one.path]

        await asyncio.to_thread(work)


async def test_a_server_that_is_not_there_is_an_error(tmp_path: Path, bucket: S3Access) -> None:
    def work() -> None:
        nowhere = replace(bucket, endpoint="http://127.0.0.1:9")
        connected = BucketStorage.connect(settings(nowhere, retry_seconds=0.3), tmp_path)
        with connected as storage, pytest.raises(StorageError, match="the connection failed"):
            storage.prepare()

    await asyncio.to_thread(work)


async def test_errors_name_the_settings_of_this_bucket(tmp_path: Path, bucket: S3Access) -> None:
    def work() -> None:
        connected = BucketStorage.connect(settings(replace(bucket, bucket="not-there")), tmp_path)
        with connected as storage, pytest.raises(StorageError, match="check REPOSITORY_STORE_BUCKET"):
            storage.prepare()

    await asyncio.to_thread(work)


async def test_one_machine_writes_at_a_time(bucket: S3Access, tmp_path: Path) -> None:
    """And another one right after it; what needs no turn of its own goes on meanwhile."""

    def work() -> None:
        with ExitStack() as stack:
            here, there = (
                stack.enter_context(BucketStorage.connect(settings(bucket), tmp_path / name)) for name in ("a", "b")
            )
            beside = stack.enter_context(BucketStorage.connect(settings(bucket), tmp_path / "a"))
            threads = stack.enter_context(ThreadPoolExecutor())
            with here.collecting(patience=1):
                with beside.exclusive():  # another process of the same machine
                    version = beside.exchange(".cvmfspublished", b"from a", None)
                waiting = threads.submit(change, there)
                with there.using(patience=1):
                    there.put([make(b"prepared")])
                    there.flush()
                here.exchange(".cvmfspublished", b"again from a", version)
            waiting.result(timeout=300)
            assert here.read(".cvmfspublished") == b"again from a and b"

    def change(storage: BucketStorage) -> None:
        with storage.exclusive():
            content, version = storage.look(".cvmfspublished")
            storage.exchange(".cvmfspublished", content + b" and b", version)

    await asyncio.to_thread(work)


async def test_machines_that_come_at_the_same_time_take_turns(bucket: S3Access, tmp_path: Path) -> None:
    barrier = threading.Barrier(4)

    def machine(number: int) -> None:
        with BucketStorage.connect(settings(bucket), tmp_path / str(number)) as storage:
            barrier.wait()
            for _ in range(3):
                with storage.exclusive():
                    there = storage.version(".cvmfspublished") is not None
                    content, version = storage.look(".cvmfspublished") if there else (b"", None)
                    storage.exchange(".cvmfspublished", content + b"%d" % number, version)

    await asyncio.gather(*(asyncio.to_thread(machine, number) for number in range(4)))
    with BucketStorage.connect(settings(bucket), tmp_path / "0") as storage:
        assert sorted(await asyncio.to_thread(storage.read, ".cvmfspublished")) == sorted(b"000111222333")


async def test_temporary_files_never_get_into_the_bucket(bucket: S3Access, tmp_path: Path) -> None:
    def work() -> None:
        with BucketStorage.connect(settings(bucket), tmp_path) as storage:
            (storage.local / "data/txn/half").write_bytes(b"half an object")
            storage.flush()
            assert list(storage.list("data/")) == []
            assert [left.path for left in storage.list("data/txn/")] == ["data/txn/half"]
            storage.delete(["data/txn/half"])
            assert list(storage.list("data/txn/")) == []

    await asyncio.to_thread(work)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if "repository-store" in thread.name]


def late(access: S3Access, path: Path) -> AbstractContextManager[BucketStorage]:
    return BucketStorage.connect(settings(access, retry_seconds=1, lease_seconds=8), path)


_LATE: Final[Mapping[str, Callable[[BucketStorage], object]]] = {
    "^PUT .*thin_reflog": lambda storage: storage.replace(".cvmfs_thin_reflog", b"late"),
    "^POST .*delete": lambda storage: storage.delete([".cvmfsreflog"]),
    "^PUT .*cvmfspublished": lambda storage: storage.exchange(".cvmfspublished", b"late", None),
    "^PUT .*cvmfsreflog": lambda storage: storage.move(".cvmfs_thin_reflog", ".cvmfsreflog"),
}


async def test_what_arrives_after_the_lease_is_over_is_refused(bucket: S3Access, tmp_path: Path) -> None:
    """Whatever the sender believed when it sent it: the request itself says until when it holds."""
    arrived, overtaken = threading.Barrier(len(_LATE) + 1, timeout=300), threading.Event()

    async def held(_position: int, data: bytes) -> bytes:
        await asyncio.to_thread(arrived.wait)
        await asyncio.to_thread(overtaken.wait)
        return data

    def stopped(proxy: FaultProxy) -> None:
        with late(replace(bucket, endpoint=proxy.endpoint), tmp_path / "a") as storage, storage.exclusive():
            storage.replace(".cvmfs_thin_reflog", b"next")
            proxy.faults.append(Fault("^PUT .*lease", times=10**6, answer=Answer(503, "SlowDown")))
            proxy.faults += [Fault(step, head=held) for step in _LATE]
            with ThreadPoolExecutor(len(_LATE)) as threads:
                for change in [threads.submit(change, storage) for change in _LATE.values()]:
                    assert isinstance(change.exception(), OvertakenError), change

    def other() -> None:
        arrived.wait()
        with late(bucket, tmp_path / "b") as storage, storage.exclusive():
            for name in (".cvmfsreflog", ".cvmfs_thin_reflog"):
                storage.replace(name, b"in time")
            overtaken.set()

    async with FaultProxy.before(bucket.endpoint) as proxy:
        try:
            await asyncio.gather(asyncio.to_thread(stopped, proxy), asyncio.to_thread(other))
        finally:
            overtaken.set()
            arrived.abort()

    def look() -> None:
        with late(bucket, tmp_path / "b") as storage:
            assert storage.read(".cvmfsreflog") == storage.read(".cvmfs_thin_reflog") == b"in time"
            assert storage.version(".cvmfspublished") is None

    await asyncio.to_thread(look)


async def test_a_machine_that_is_gone_is_followed_without_a_look_at_its_clock(bucket: S3Access, tmp_path: Path) -> None:
    now = 1000.0
    async with Bucket.open(settings(bucket)) as connection:
        first, second = (
            Lease(
                bucket=connection,
                key="lease",
                holder=name,
                seconds=600,  # so that it is not renewed meanwhile
                patience=0,
                lock=tmp_path / name,
                clock=lambda: now,
            )
            for name in ("first", "second")
        )
        await first.enter()
        assert first.term().seconds == 600
        for after in (0, 590, 10):
            now += after
            with pytest.raises(RepositoryBusyError, match="another publisher writes"):
                await second.enter()
        with pytest.raises(OvertakenError, match="could not be renewed"):
            first.term()
        now += 1.5
        await second.enter()  # within the lease's time and two seconds of the first look
        assert second.term().seconds == 600
        await first.leave()  # which takes nothing away
        with pytest.raises(RepositoryBusyError):
            await first.enter()
        await second.leave()
        await first.enter()  # it was given back
        await first.leave()
