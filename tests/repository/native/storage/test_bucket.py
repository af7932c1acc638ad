"""A repository in a bucket of a real S3 server, with what networks and servers do to requests."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from harness.s3 import S3Access, s3_client
from services.common.object_store.bucket import Bucket
from services.repository.native.errors import ObjectMissingError, RepositoryBusyError, StorageError
from services.repository.native.records import ContentHash, ObjectKind
from services.repository.native.storage.bucket import BucketStorage
from services.repository.native.storage.interface import NewObject
from services.repository.native.storage.lease import Lease
from services.repository.native.storage.settings import RepositoryStoreSettings
from tests.support.fault_proxy import Answer, Fault, FaultProxy, cut


def settings(access: S3Access, *, prefix: str = "cvmfs/", retry_seconds: float = 60) -> RepositoryStoreSettings:
    return access.repository_settings(prefix=prefix, retry_seconds=retry_seconds, read_timeout=60)


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
                storage.replace(".cvmfspublished", b"a manifest")
                version = storage.version(".cvmfspublished")
                assert version == storage.version(".cvmfspublished")
                storage.replace(".cvmfspublished", b"another manifest")
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
                storage.replace(".cvmfspublished", b"manifest")
                assert storage.read(large.path) == large.content
                assert len(list(storage.list("data/"))) == 1
                storage.delete([large.path])
                assert storage.size(large.path) is None

        await asyncio.to_thread(work)
        assert fault.times == 0


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
    def work() -> None:
        with ExitStack() as stack:
            here, there = (
                stack.enter_context(BucketStorage.connect(settings(bucket), tmp_path / name)) for name in ("a", "b")
            )
            beside = stack.enter_context(BucketStorage.connect(settings(bucket), tmp_path / "a"))
            with here.using(patience=1):
                with beside.exclusive():  # another process of the same machine
                    beside.replace(".cvmfspublished", b"from a")
                for lock in (there.exclusive(), there.using(patience=1), there.collecting(patience=1)):
                    with pytest.raises(RepositoryBusyError, match="another machine writes"), lock:
                        pass
                with pytest.raises(RepositoryBusyError, match="another machine writes"):
                    there.replace(".cvmfspublished", b"from b")
            assert here.read(".cvmfspublished") == b"from a"

    await asyncio.to_thread(work)


async def test_two_machines_that_come_at_the_same_time(bucket: S3Access, tmp_path: Path) -> None:
    outcomes: list[str] = []
    barrier = threading.Barrier(4)

    def machine(number: int) -> None:
        with BucketStorage.connect(settings(bucket), tmp_path / str(number)) as storage:
            barrier.wait()
            try:
                with storage.exclusive():
                    outcomes.append("held")
            except RepositoryBusyError:
                outcomes.append("busy")

    await asyncio.gather(*(asyncio.to_thread(machine, number) for number in range(4)))
    assert sorted(outcomes) == ["busy", "busy", "busy", "held"]


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


async def test_a_machine_that_is_gone_is_waited_for_and_then_followed(bucket: S3Access) -> None:
    now = 1000.0
    async with Bucket.open(settings(bucket)) as connection:
        first, second = (
            Lease(bucket=connection, key="lease", holder=name, clock=lambda: now) for name in ("first", "second")
        )
        await first.enter()
        await first.leave()  # as good as gone: nobody renews it any more
        first.check()
        now += 80
        with pytest.raises(StorageError, match="could not be renewed"):
            first.check()
        with pytest.raises(RepositoryBusyError):
            await second.enter()  # the clocks of the two may differ
        now += 20
        await second.enter()
        second.check()
        with pytest.raises(RepositoryBusyError):
            await first.enter()
        await second.leave()
