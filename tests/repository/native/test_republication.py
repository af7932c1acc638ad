"""Objects that are damaged or lost become whole when a layer that has them is published again."""

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
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


def problems(storage: Storage, keys: KeyFiles) -> list[str]:
    """Check everything; return what is wrong, and what to do."""
    checker = Checker(storage, name=NATIVE_NAME, master_keys=[keys.public.read_bytes()])
    return [str(problem) for problem in checker.run().problems]


def objects_of(storage: Storage, keys: KeyFiles, layer: LayerArchive) -> list[str]:
    """Return the paths of a layer's catalog, of the object of its file `shared`, and of the largest object."""
    with RepositoryReader(storage, name=NATIVE_NAME, master_keys=[keys.public.read_bytes()]) as reader:
        revision = reader.newest(reader.head())
        shared = revision.stat(f"/{layer_tree(layer.digest)}/shared".encode())
        assert shared is not None
        assert shared.hash is not None
        catalog = revision.catalog_of(f"/{layer_home(layer.digest)}".encode()).hash
        chunk = max(storage.list("data/"), key=lambda found: found.size).path
        return [catalog.path(ObjectKind.CATALOG), shared.hash.path(ObjectKind.FILE), chunk]


def damage(storage: Storage, changes: Mapping[str, Change | None]) -> None:
    """Change objects behind everybody's back, or delete them."""
    with storage.exclusive():
        for path, change in changes.items():
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


async def test_a_layer_that_is_published_anew_mends_all_that_have_its_objects(
    in_directory: Place, tmp_path: Path
) -> None:
    await mend(in_directory, tmp_path, [(flipped, cut, None), (cut, None, flipped), (None, flipped, cut)])


async def test_so_it_does_in_a_bucket_whichever_publisher_does_it(in_bucket: Place, tmp_path: Path) -> None:
    await mend(in_bucket, tmp_path, [(flipped, cut, None), (None, flipped, cut)])


async def mend(place: Place, tmp_path: Path, rounds: Sequence[Sequence[Change | None]]) -> None:
    """Damage a catalog, a file's object and a chunk, and have them mended, by each publisher in turn."""
    one, two = (layer_of(tmp_path, seed) for seed in ("one", "two"))
    async with AsyncExitStack() as stack:
        storage = stack.enter_context(place.connect())
        repositories = [await stack.enter_async_context(opened()) for opened in place.publishers]
        await publish(repositories[0], one)
        await publish(repositories[-1], two)
        objects = await asyncio.to_thread(objects_of, storage, place.keys, one)
        whole = [storage.read(path) for path in objects]
        for repository, changes in zip(cycle(repositories), rounds, strict=False):
            damage(storage, dict(zip(objects, changes, strict=True)))
            told = await asyncio.to_thread(problems, storage, place.keys)
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
            assert await asyncio.to_thread(problems, storage, place.keys) == []
            assert [storage.read(path) for path in objects] == whole
        with pytest.raises(RepositoryError, match="is there already"):
            await publish(repositories[0], one)


async def test_a_layer_whose_catalog_is_lost_is_missing_once_it_is_to_be_published_anew(
    site: NativeSite, tmp_path: Path
) -> None:
    layer, storage = layer_of(tmp_path, "one"), site.storage
    async with site.opened() as repository:
        await publish(repository, layer)
    damage(storage, {objects_of(storage, site.keys, layer)[0]: None})
    async with site.opened() as repository:
        with pytest.raises(BrokenRepositoryError, match=f"thin-repository check {NATIVE_NAME} says what mends it"):
            await repository.lookup(layer.digest)
        with storage.exclusive():
            Republication(storage).ask([layer.digest])
        assert await repository.lookup(layer.digest) is None
        assert await repository.list_layers(layer.digest[:2]) == []
        await publish(repository, layer)
        assert await repository.lookup(layer.digest) is not None
        assert storage.size(REPUBLISHED) is None
    assert site.problems() == []


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
