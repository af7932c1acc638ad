"""A publisher whose repository is in a bucket: published, read, deduplicated, collected, and cut off in between."""

import asyncio
import hashlib
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from harness.s3 import S3Access
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerArchive
from services.publisher.factory import build_publisher
from services.publisher.settings import PublisherSettings, RepositoryKind
from services.registry.options import RegistryOptions
from services.repository.native.access import RepositoryAccess
from services.repository.native.collection.collector import Collector
from services.repository.native.collection.retention import Retention
from services.repository.native.errors import StorageError
from services.repository.native.records import MANIFEST, REFLOG
from services.repository.native.removal import remove_layers
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.writer.index import ContentIndex
from tests.repository.native.conftest import NAME
from tests.support.bucket_site import BucketSite
from tests.support.fault_proxy import Answer, Fault, FaultProxy
from tests.support.native import publish, tar_archive
from tests.support.publisher import TOKEN
from tests.support.tars import archive, member


def content(seed: str) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(20_000)


def make(directory: Path, *seeds: str) -> LayerArchive:
    return tar_archive(directory, archive(*(member(seed.encode(), content(seed)) for seed in seeds)))


@pytest.fixture
async def place(bucket: S3Access, keys: KeyFiles, tmp_path: Path) -> BucketSite:
    site = BucketSite(access=bucket, keys=keys, state=tmp_path / "state")
    await asyncio.to_thread(site.create)
    return site


async def test_layers_are_published_into_it(place: BucketSite, tmp_path: Path) -> None:
    one, two = make(tmp_path, "a", "b"), make(tmp_path, "b", "c")
    async with place.opened() as repository:
        assert await publish(repository, one) == 2
        before = await asyncio.to_thread(place.objects)
        assert await publish(repository, two) == 3
        assert await repository.lookup(one.digest) is not None
    after = await asyncio.to_thread(place.objects)
    # Of its two files one is there already: new are the other, the sidecar, and what its tar was (tar-split).
    assert len([path for path in after - before if path[-1] not in "CHXM"]) == 3
    assert await asyncio.to_thread(place.read, two, "b") == content("b")
    assert await asyncio.to_thread(place.problems) == []


async def test_what_is_removed_and_collected_can_come_back(place: BucketSite, tmp_path: Path) -> None:
    one, two, three = make(tmp_path, "a", "b"), make(tmp_path, "c"), make(tmp_path, "d")
    later = time.time() + 365 * 86400

    def remove() -> None:
        with place.storage() as storage:
            access = RepositoryAccess.open(name=NAME, storage=storage, keys=place.keys)
            remove_layers(access, [one.digest], state=None)

    def collect() -> int:
        connected = place.storage()
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
        assert (
            len([path for path in gone if path[-1] not in "CHXM"]) == 4
        )  # two files, the sidecar, and what its tar was
        assert await asyncio.to_thread(place.problems) == []
        # The index does not promise any more what has been deleted.
        await publish(repository, one)
    assert await asyncio.to_thread(place.read, one, "a") == content("a")
    assert await asyncio.to_thread(place.problems) == []


async def test_what_a_bucket_has_lost_is_uploaded_again(place: BucketSite, tmp_path: Path) -> None:
    """A bucket that was emptied, or brought back to an earlier state, lacks what the publisher knows to be there."""
    async with place.opened() as repository:
        await publish(repository, make(tmp_path, "a", "b"))

    def begin_anew() -> None:
        with place.storage() as storage, storage.exclusive():
            storage.delete([MANIFEST, REFLOG, *(found.path for found in storage.list("data/"))])
        place.create()

    await asyncio.to_thread(begin_anew)
    again = make(tmp_path, "a", "c")
    async with place.opened() as repository:
        assert await publish(repository, again) == 3  # no number is given twice
    assert await asyncio.to_thread(place.problems) == []
    assert await asyncio.to_thread(place.read, again, "a") == content("a")


async def test_a_bucket_that_fails_leaves_the_old_revision(place: BucketSite, tmp_path: Path) -> None:
    one, two = make(tmp_path, "a"), make(tmp_path, "b")
    async with place.opened() as repository:
        await publish(repository, one)
    fault = Fault("^PUT .*published", times=10**6, answer=Answer(503, "SlowDown"))
    async with FaultProxy.before(place.access.endpoint, fault) as proxy:
        through = replace(place, access=replace(place.access, endpoint=proxy.endpoint), retry_seconds=0.5)
        async with through.opened() as repository:
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
    place: BucketSite, tmp_path: Path, step: str, *, published: bool
) -> None:
    one, two = make(tmp_path, "a"), make(tmp_path, "b")
    async with place.opened() as repository:
        await publish(repository, one)
    async with FaultProxy.before(
        place.access.endpoint, Fault(step, times=10**6, answer=Answer(403, "Denied"))
    ) as proxy:
        through = replace(place, access=replace(place.access, endpoint=proxy.endpoint), retry_seconds=0.5)
        async with through.opened() as repository:
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
    place: BucketSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
