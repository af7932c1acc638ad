"""Objects that are damaged or lost become whole when a layer that has them is published again."""

import asyncio
import hashlib
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import pytest

from harness.s3 import S3Access
from services.common.archive.model import LayerArchive
from services.common.layout import layer_home, layer_tree
from services.repository.errors import RepositoryError
from services.repository.native.check.checker import Checker
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.records import REPUBLISHED, ObjectKind
from services.repository.native.repository import NativeRepository
from services.repository.native.republication import Republication
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.storage.interface import Storage
from services.repository.native.trust.keyring import KeyFiles
from tests.support.bucket_site import BucketSite
from tests.support.native import NATIVE_NAME, NativeSite, publish, tar_archive
from tests.support.tars import archive, member
from tests.support.thin_repository import thin_repository

Change = Callable[[bytes], bytes]

_MIDDLE = 20
"""A byte of every object that is changed."""


def flipped(stored: bytes) -> bytes:
    return stored[:_MIDDLE] + bytes([stored[_MIDDLE] ^ 1]) + stored[_MIDDLE + 1 :]


def cut(stored: bytes) -> bytes:
    return stored[:_MIDDLE]


@dataclass(frozen=True)
class Place:
    """A repository, wherever it is, and its publishers."""

    keys: KeyFiles
    connect: Callable[[], AbstractContextManager[Storage]]
    publishers: tuple[Callable[[], AbstractAsyncContextManager[NativeRepository]], ...]
    options: tuple[str | Path, ...]
    """What commands that change it are given."""

    def problems(self) -> list[str]:
        """Check everything; return what is to be done."""
        with self.connect() as storage:
            checker = Checker(storage, name=NATIVE_NAME, master_keys=[self.keys.public.read_bytes()])
            return [str(problem) for problem in checker.run().problems]

    def catalog_of(self, layer: LayerArchive) -> str:
        """Return the path of a layer's catalog."""
        with (
            self.connect() as storage,
            RepositoryReader(storage, name=NATIVE_NAME, master_keys=[self.keys.public.read_bytes()]) as reader,
        ):
            home = f"/{layer_home(layer.digest)}".encode()
            return reader.newest(reader.head()).catalog_of(home).hash.path(ObjectKind.CATALOG)

    def objects_of(self, layer: LayerArchive) -> list[str]:
        """Return the paths of a layer's catalog, of the object of its file `shared`, and of a chunk."""
        with (
            self.connect() as storage,
            RepositoryReader(storage, name=NATIVE_NAME, master_keys=[self.keys.public.read_bytes()]) as reader,
        ):
            revision = reader.newest(reader.head())
            shared = revision.stat(f"/{layer_tree(layer.digest)}/shared".encode())
            assert shared is not None
            assert shared.hash is not None
            chunk = next(found.path for found in storage.list("data/") if found.size >= 4 << 20)
            return [self.catalog_of(layer), shared.hash.path(ObjectKind.FILE), chunk]

    def read(self, *paths: str) -> list[bytes]:
        """Return stored objects."""
        with self.connect() as storage:
            return [storage.read(path) for path in paths]

    def damage(self, path: str, change: Change | None) -> None:
        """Change an object behind everybody's back, or delete it."""
        with self.connect() as storage, storage.exclusive():
            if change is None:
                storage.delete([path])
            else:
                storage.replace(path, change(storage.read(path)))


@pytest.fixture
def in_directory(site: NativeSite) -> Place:
    return Place(
        keys=site.keys,
        connect=lambda: nullcontext(site.storage),
        publishers=(site.opened,),
        options=("--directory", site.root, "--keys", site.keys.key.parent),
    )


@pytest.fixture
async def in_bucket(bucket: S3Access, keys: KeyFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Its publishers have states of their own: each believes what its own index says of the bucket."""
    one = BucketSite(access=bucket, keys=keys, state=tmp_path / "one")
    await asyncio.to_thread(one.create)
    for name, value in {**bucket.repository_environment, "REPOSITORY_STORE_PREFIX": one.prefix}.items():
        monkeypatch.setenv(name, value)
    other = replace(one, state=tmp_path / "other")
    return Place(
        keys=keys,
        connect=one.storage,
        publishers=(one.opened, other.opened),
        options=("--state", one.state, "--keys", keys.key.parent),
    )


@pytest.fixture(params=["directory", "bucket"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each kind in turn, made before a loop runs."""
    found: Place = request.getfixturevalue(f"in_{request.param}")
    return found


def layer_of(directory: Path, seed: str) -> LayerArchive:
    """Make a layer with a small file and a chunk that others have as well, and something of its own."""

    def content(text: str, size: int) -> bytes:
        return hashlib.shake_128(text.encode()).digest(size)

    return tar_archive(
        directory,
        archive(
            member(b"shared", content("shared", 3000)),
            member(b"large", content("large", 4 << 20) + content(seed, 3000)),
            member(b"own", content(seed, 3000)),
        ),
    )


async def test_a_layer_that_is_published_anew_mends_all_that_have_its_objects(place: Place, tmp_path: Path) -> None:
    one, two = (layer_of(tmp_path, seed) for seed in ("one", "two"))
    async with AsyncExitStack() as stack:
        repositories = [await stack.enter_async_context(opened()) for opened in place.publishers]
        await publish(repositories[0], one)
        await publish(repositories[-1], two)
        objects = await asyncio.to_thread(place.objects_of, one)
        whole = await asyncio.to_thread(place.read, *objects)
        changes: tuple[Change | None, ...] = (flipped, cut, None)
        for repository, change in zip(cycle(repositories), changes, strict=False):
            for path in objects:
                await asyncio.to_thread(place.damage, path, change)
            told = await asyncio.to_thread(place.problems)
            assert sorted(path for path in objects for text in told if path in text) == sorted(objects)
            # What is in the damaged catalog is not known; so of what both layers have, the other one is named.
            named = {digest for text in told for digest in re.findall("republish NAME ([0-9a-f]{64})", text)}
            assert named == {one.digest, two.digest}
            ended = await asyncio.to_thread(
                thin_repository, "republish", NATIVE_NAME, *place.options, one.digest, "--json"
            )
            assert ended.document == {"republished": [one.digest]}
            for each in repositories:
                assert await each.lookup(one.digest) is None
                assert await each.list_layers(one.digest[:2]) == []
            await publish(repository, one)
            for each in repositories:
                assert await each.lookup(one.digest) is not None
            assert await asyncio.to_thread(place.problems) == []
            assert await asyncio.to_thread(place.read, *objects) == whole
        with pytest.raises(RepositoryError, match="is there already"):
            await publish(repository, one)


async def test_a_layer_whose_catalog_is_lost_is_missing_once_it_is_to_be_published_anew(
    in_directory: Place, tmp_path: Path
) -> None:
    layer = tar_archive(tmp_path, archive(member(b"shared", b"content")))
    async with in_directory.publishers[0]() as repository:
        await publish(repository, layer)
    with in_directory.connect() as storage:
        in_directory.damage(in_directory.catalog_of(layer), None)
        async with in_directory.publishers[0]() as repository:
            with pytest.raises(BrokenRepositoryError, match=f"thin-repository check {NATIVE_NAME} says what mends it"):
                await repository.lookup(layer.digest)
            with storage.exclusive():
                Republication(storage).ask([layer.digest])
            assert await repository.lookup(layer.digest) is None
            assert await repository.list_layers(layer.digest[:2]) == []
            await publish(repository, layer)
            assert await repository.lookup(layer.digest) is not None
            assert storage.size(REPUBLISHED) is None
    assert in_directory.problems() == []


def test_only_layers_that_are_there_are_published_anew(site: NativeSite) -> None:
    ended = thin_repository(
        "republish", NATIVE_NAME, "--directory", site.root, "--keys", site.keys.key.parent, "0" * 64
    )
    assert ended.status == 1
    assert f"does not hold {'0' * 64}: nothing has been changed" in ended.error
    assert site.storage.size(REPUBLISHED) is None


@pytest.mark.parametrize("content", [b"", b"[]", b'{"layers": ["x"]}', b'{"layers": 1}', b"\xff"])
def test_a_damaged_list_of_layers_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    storage = DirectoryStorage(tmp_path)
    storage.prepare()
    storage.replace(REPUBLISHED, content)
    with pytest.raises(BrokenRepositoryError, match=r"is damaged: remove it, and name the layers again"):
        Republication(storage).layers()
