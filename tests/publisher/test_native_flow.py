"""A publisher process that writes a native repository, in a directory and in a bucket."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.s3 import S3Access
from services.common.archive.model import LayerArchive
from services.common.layout import layer_tree
from services.repository.native.access import RepositoryAccess
from services.repository.native.check.checker import Checker
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.records import ObjectKind
from services.repository.native.republication import republish_layers
from services.repository.native.storage.bucket import BucketStorage
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.storage.interface import Storage
from services.repository.native.trust.keyring import KeyFiles
from tests.support.notifications import ceph_event
from tests.support.publisher import REPOSITORY, PublisherProcess, make_layer, upload

_PREFIX = "cvmfs/"


@pytest.fixture(params=["directory", "bucket"])
def kind(request: pytest.FixtureRequest) -> str:
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture
def keys(tmp_path: Path) -> KeyFiles:
    return KeyFiles(tmp_path / "keys", REPOSITORY)


@pytest.fixture
def native(tmp_path: Path, bucket: S3Access, keys: KeyFiles, kind: str) -> PublisherProcess:
    """A publisher of an empty native repository, not started."""
    settings = {"PUBLISHER_REPOSITORY_KIND": "native", "PUBLISHER_KEYS": str(tmp_path / "keys")}
    if kind == "bucket":
        settings |= {
            "PUBLISHER_DIRECTORY": "",
            "REPOSITORY_STORE_PREFIX": _PREFIX,
            **bucket.repository_environment,
        }
    publisher = PublisherProcess(tmp_path / "publisher", bucket, settings)
    with _storage(publisher, kind) as storage:
        create_repository(name=REPOSITORY, storage=storage, keys=keys, chosen=RepositoryFormat(), meta={})
    return publisher


@contextmanager
def _storage(publisher: PublisherProcess, kind: str) -> Iterator[Storage]:
    if kind == "directory":
        yield DirectoryStorage(publisher.root)
        return
    settings = publisher.access.repository_settings(prefix=_PREFIX)
    with BucketStorage.connect(settings, publisher.state / "native" / REPOSITORY) as storage:
        yield storage


def _read(publisher: PublisherProcess, kind: str, keys: KeyFiles, archive: LayerArchive) -> bytes:
    """Read a layer's file as a client does, and check the whole repository."""
    with _storage(publisher, kind) as storage:
        public = keys.public.read_bytes()
        assert Checker(storage, name=REPOSITORY, master_keys=[public]).run().problems == ()
        with RepositoryReader(storage, name=REPOSITORY, master_keys=[public]) as reader:
            revision = reader.newest(reader.head())
            entry = revision.stat(f"/{layer_tree(archive.digest)}/name".encode())
            assert entry is not None
            return b"".join(revision.content(entry))


def _damage(publisher: PublisherProcess, kind: str, keys: KeyFiles, archive: LayerArchive) -> None:
    """Damage a layer's file, and have the layer published anew, as an operator does."""
    with _storage(publisher, kind) as storage:
        with RepositoryReader(storage, name=REPOSITORY, master_keys=[keys.public.read_bytes()]) as reader:
            entry = reader.newest(reader.head()).stat(f"/{layer_tree(archive.digest)}/name".encode())
        assert entry is not None
        assert entry.hash is not None
        with storage.exclusive():
            storage.replace(entry.hash.path(ObjectKind.FILE), b"damaged")
        republish_layers(RepositoryAccess.open(name=REPOSITORY, storage=storage, keys=keys), [archive.digest])


async def test_announced_layers_are_published(
    native: PublisherProcess, tmp_path: Path, kind: str, keys: KeyFiles
) -> None:
    archives = [make_layer(tmp_path, name) for name in ("one", "two", "three")]
    await upload(native.access, *archives)
    objects = [f"sha256/{archive.digest}" for archive in archives]
    async with native.running():
        assert await native.announce(ceph_event(native.access.bucket, *objects)) == 204
        await native.published(*archives)
        assert (await native.get("/readyz"))["waiting_for"] is None
        assert (await native.get("/v1/status"))["trusted_until"] is not None
        first = await native.becomes(archives[0].digest, "published")
        _damage(native, kind, keys, archives[0])
        assert await native.retry(archives[0].digest) == 202
        layer = await native.becomes(archives[0].digest, "published")
    assert layer["revision"] > first["revision"] > 1
    assert layer["notes"] == []
    assert [_read(native, kind, keys, archive) for archive in archives] == [b"one", b"two", b"three"]


async def test_a_killed_publisher_goes_on(native: PublisherProcess, tmp_path: Path, kind: str, keys: KeyFiles) -> None:
    archives = [make_layer(tmp_path, str(number), {"name": f"layer {number}"}) for number in range(12)]
    await upload(native.access, *archives)
    objects = [f"sha256/{archive.digest}" for archive in archives]
    async with native.ended():
        await native.start()
        assert await native.announce(ceph_event(native.access.bucket, *objects)) == 204
        await native.kill()
        await native.start()
        await native.published(*archives)
        assert await native.daemon.stop() == 0
    assert [_read(native, kind, keys, archive) for archive in archives[:2]] == [b"layer 0", b"layer 1"]


async def test_what_cannot_be_kept_is_told(native: PublisherProcess, tmp_path: Path) -> None:
    tree = tmp_path / "layer.tree"
    tree.mkdir()
    (tree / "link").symlink_to("$(HOME)")
    archive = make_layer(tmp_path, "layer")
    await upload(native.access, archive)
    async with native.running():
        assert await native.announce(ceph_event(native.access.bucket, f"sha256/{archive.digest}")) == 204
        layer = await native.becomes(archive.digest, "published")
    (note,) = layer["notes"]
    assert "clients of CVMFS expand the variable" in note
