"""A publisher whose repository is in a bucket: published, read, deduplicated, collected, and cut off in between."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from harness.s3 import S3Access
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerArchive
from services.common.layout import LayerLayout, layer_tree
from services.publisher.factory import build_publisher
from services.publisher.settings import PublisherSettings, RepositoryKind
from services.registry.options import RegistryOptions
from services.repository.native.access import RepositoryAccess
from services.repository.native.check.checker import Checker
from services.repository.native.collection.collector import Collector
from services.repository.native.collection.retention import Retention
from services.repository.native.create import create_repository
from services.repository.native.errors import StorageError
from services.repository.native.format import RepositoryFormat
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.records import MANIFEST, REFLOG, WAITING_REFLOG
from services.repository.native.removal import remove_layers
from services.repository.native.repository import NativeRepository
from services.repository.native.storage.bucket import BucketStorage
from services.repository.native.storage.settings import RepositoryStoreSettings
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.writer.index import ContentIndex
from tests.repository.native.conftest import NAME
from tests.support.fault_proxy import Answer, Fault, FaultProxy
from tests.support.native import publish, tar_archive
from tests.support.publisher import TOKEN
from tests.support.stock_rules import faults_of_reflog
from tests.support.tars import archive, member


def settings(access: S3Access, *, retry_seconds: float = 20) -> RepositoryStoreSettings:
    return access.repository_settings(prefix="cvmfs/", retry_seconds=retry_seconds)


def content(seed: str) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(20_000)


def make(directory: Path, *seeds: str) -> LayerArchive:
    return tar_archive(directory, archive(*(member(seed.encode(), content(seed)) for seed in seeds)))


class Site:
    """A repository in a bucket, and its publisher's state."""

    def __init__(self, access: S3Access, keys: KeyFiles, state: Path) -> None:
        self.access = access
        self.keys = keys
        self.state = state

    def create(self) -> None:
        with BucketStorage.connect(settings(self.access), self.state) as storage:
            create_repository(name=NAME, storage=storage, keys=self.keys, chosen=RepositoryFormat(), meta={})

    @asynccontextmanager
    async def opened(self, *, retry_seconds: float = 20) -> AsyncIterator[NativeRepository]:
        connected = BucketStorage.connect(settings(self.access, retry_seconds=retry_seconds), self.state)
        with ThreadPoolExecutor(4) as threads, connected as storage:
            repository = NativeRepository(
                name=NAME,
                storage=storage,
                keys=self.keys,
                state=self.state,
                layout=LayerLayout.FLAT,
                threads=threads,
                workers=1,
            )
            async with repository:
                await repository.recover(())
                yield repository

    def problems(self) -> list[str]:
        with BucketStorage.connect(settings(self.access), self.state) as storage:
            checker = Checker(storage, name=NAME, master_keys=[self.keys.public.read_bytes()])
            return [f"{problem.place}: {problem.what}" for problem in checker.run().problems]

    def read(self, layer: LayerArchive, name: str) -> bytes | None:
        with BucketStorage.connect(settings(self.access), self.state) as storage:
            public = self.keys.public.read_bytes()
            with RepositoryReader(storage, name=NAME, master_keys=[public]) as reader:
                revision = reader.newest(reader.head())
                entry = revision.stat(f"/{layer_tree(layer.digest)}/{name}".encode())
                return None if entry is None else b"".join(revision.content(entry))

    def faults_of_reflog(self) -> list[str]:
        with BucketStorage.connect(settings(self.access), self.state) as storage:
            return faults_of_reflog(lambda name: None if storage.size(name) is None else storage.read(name))

    def root_files(self) -> set[str]:
        names = (MANIFEST, REFLOG, WAITING_REFLOG)
        with BucketStorage.connect(settings(self.access), self.state) as storage:
            return {name for name in names if storage.size(name) is not None}

    def objects(self) -> set[str]:
        with BucketStorage.connect(settings(self.access), self.state) as storage:
            return {found.path for found in storage.list("data/")}


@pytest.fixture
async def place(bucket: S3Access, keys: KeyFiles, tmp_path: Path) -> Site:
    site = Site(bucket, keys, tmp_path / "state")
    await asyncio.to_thread(site.create)
    return site


async def test_layers_are_published_into_it(place: Site, tmp_path: Path) -> None:
    one, two = make(tmp_path, "a", "b"), make(tmp_path, "b", "c")
    async with place.opened() as repository:
        assert await publish(repository, one) == 2
        before = await asyncio.to_thread(place.objects)
        assert await publish(repository, two) == 3
        assert await repository.lookup(one.digest) is not None
    after = await asyncio.to_thread(place.objects)
    # Of its two files one is there already: what is new is the other, the sidecar, and what describes the revision.
    assert len([path for path in after - before if path[-1] not in "CHXM"]) == 2
    assert await asyncio.to_thread(place.read, two, "b") == content("b")
    assert await asyncio.to_thread(place.problems) == []


async def test_what_is_removed_and_collected_can_come_back(place: Site, tmp_path: Path) -> None:
    one, two, three = make(tmp_path, "a", "b"), make(tmp_path, "c"), make(tmp_path, "d")
    later = time.time() + 365 * 86400

    def remove() -> None:
        with BucketStorage.connect(settings(place.access), place.state) as storage:
            access = RepositoryAccess.open(name=NAME, storage=storage, keys=place.keys)
            remove_layers(access, [one.digest], state=None)

    def collect() -> int:
        connected = BucketStorage.connect(settings(place.access), place.state)
        with connected as storage, closing(ContentIndex(place.state / "index.sqlite")) as index:
            access = RepositoryAccess.open(name=NAME, storage=storage, keys=place.keys)
            retention = Retention(revisions=1, days=0)
            return (
                Collector(access=access, retention=retention, forget=index.forget, patience=10, clock=lambda: later)
                .collect()
                .objects
            )

    async with place.opened() as repository:
        await publish(repository, one)
        before = await asyncio.to_thread(place.objects)
        await asyncio.to_thread(remove)
        await publish(repository, two)  # so that the layer is not even in the undo target
        await publish(repository, three)
        assert await asyncio.to_thread(collect) > 0
        gone = before - await asyncio.to_thread(place.objects)
        assert len([path for path in gone if path[-1] not in "CHXM"]) == 3  # two files and the sidecar
        assert await asyncio.to_thread(place.problems) == []
        # The index does not promise any more what has been deleted.
        await publish(repository, one)
    assert await asyncio.to_thread(place.read, one, "a") == content("a")
    assert await asyncio.to_thread(place.problems) == []


async def test_what_a_bucket_has_lost_is_uploaded_again(place: Site, tmp_path: Path) -> None:
    """A bucket that was emptied, or brought back to an earlier state, lacks what the publisher knows to be there."""
    async with place.opened() as repository:
        await publish(repository, make(tmp_path, "a", "b"))

    def begin_anew() -> None:
        with BucketStorage.connect(settings(place.access), place.state) as storage:
            storage.delete([MANIFEST, REFLOG, *(found.path for found in storage.list("data/"))])
        place.create()

    await asyncio.to_thread(begin_anew)
    again = make(tmp_path, "a", "c")
    async with place.opened() as repository:
        assert await publish(repository, again) == 3  # no number is given twice
    assert await asyncio.to_thread(place.problems) == []
    assert await asyncio.to_thread(place.read, again, "a") == content("a")


async def test_a_bucket_that_fails_leaves_the_old_revision(place: Site, tmp_path: Path) -> None:
    one, two = make(tmp_path, "a"), make(tmp_path, "b")
    async with place.opened() as repository:
        await publish(repository, one)
    fault = Fault("^PUT .*published", times=10**6, answer=Answer(503, "SlowDown"))
    async with FaultProxy.before(place.access.endpoint, fault) as proxy:
        through = Site(replace(place.access, endpoint=proxy.endpoint), place.keys, place.state)
        async with through.opened(retry_seconds=0.5) as repository:
            with pytest.raises(StorageError, match="overloaded"):
                await publish(repository, two)
    assert await asyncio.to_thread(place.read, one, "a") == content("a")
    async with place.opened() as repository:
        assert await repository.lookup(two.digest) is None
        assert await publish(repository, two) == 4  # 3 may have been seen
    assert await asyncio.to_thread(place.problems) == []


@pytest.mark.parametrize(
    ("step", "published"),
    [
        ("^PUT .*thin_reflog", False),
        ("^POST .*delete", False),
        ("^PUT .*published", False),
        ("^PUT .*cvmfsreflog", True),
    ],
)
async def test_a_bucket_that_fails_at_any_step_has_no_reference_log_or_the_right_one(
    place: Site, tmp_path: Path, step: str, *, published: bool
) -> None:
    one, two = make(tmp_path, "a"), make(tmp_path, "b")
    async with place.opened() as repository:
        await publish(repository, one)
    async with FaultProxy.before(
        place.access.endpoint, Fault(step, times=10**6, answer=Answer(403, "Denied"))
    ) as proxy:
        through = Site(replace(place.access, endpoint=proxy.endpoint), place.keys, place.state)
        async with through.opened(retry_seconds=0.5) as repository:
            if published:
                assert await publish(repository, two) == 3
            else:
                with pytest.raises(StorageError, match="403"):
                    await publish(repository, two)
    assert await asyncio.to_thread(place.faults_of_reflog) == []
    assert await asyncio.to_thread(place.problems) == []
    async with place.opened() as repository:
        assert (await repository.lookup(two.digest) is not None) == published
        assert await asyncio.to_thread(place.faults_of_reflog) == []
        await publish(repository, make(tmp_path, "c"))
    assert await asyncio.to_thread(place.root_files) == {MANIFEST, REFLOG}
    assert await asyncio.to_thread(place.faults_of_reflog) == []
    assert await asyncio.to_thread(place.problems) == []


async def test_the_publisher_finds_its_bucket_in_the_environment(
    place: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in place.access.repository_environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("REPOSITORY_STORE_PREFIX", "cvmfs/")
    own = PublisherSettings(
        repository=NAME,
        repository_kind=RepositoryKind.NATIVE,
        keys=place.keys.key.parent,
        state=tmp_path / "publisher",
        spool=tmp_path / "spool",
        event_token=SecretStr(TOKEN),
    )
    async with (
        build_publisher(own, place.access.settings, ArchiveLimits(), RegistryOptions()) as publisher,
        TestClient(TestServer(publisher.app)) as client,
    ):
        document = await (await client.get("/readyz")).json()
    assert document["checks"]["repository"] == "ok"
    assert (tmp_path / "publisher/native" / NAME / "staging/data").is_dir()
