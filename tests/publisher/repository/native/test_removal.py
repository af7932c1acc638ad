"""Layers are removed in a new revision, and collected afterwards."""

import hashlib
from pathlib import Path

import pytest

from services.common.layout import layer_tree
from services.publisher.repository.native.access import RepositoryAccess
from services.publisher.repository.native.errors import NativeError
from services.publisher.repository.native.removal import remove_layers
from tests.support.native import NATIVE_NAME, NativeSite, publish, tar_archive
from tests.support.tars import archive, member
from tests.support.thin_repository import thin_repository


def layer(seed: str) -> bytes:
    return archive(member(f"{seed}/file".encode(), hashlib.shake_128(seed.encode()).digest(5000)))


async def test_a_layer_is_removed_with_its_link(site: NativeSite, tmp_path: Path) -> None:
    one, two = (tar_archive(tmp_path, layer(seed)) for seed in ("one", "two"))
    async with site.opened() as repository:
        await publish(repository, one, two)
        place = (NATIVE_NAME, "--directory", site.root, "--keys", site.keys.key.parent, "--state", site.state)
        removed = thin_repository("remove", *place, one.digest, "--json").document
        assert removed == {"removed": [one.digest], "revision": 3}
        assert await repository.lookup(one.digest) is None
        assert await repository.lookup(two.digest) is not None
        with site.newest() as revision:
            assert revision.stat(f"/{one.digest}".encode()) is None
            assert revision.stat(f"/{layer_tree(one.digest)}".encode()) is None
            assert revision.stat(f"/{layer_tree(two.digest)}/two/file".encode()) is not None
        assert site.problems() == []
        # It can come back.
        assert await publish(repository, one) == 4
        assert await repository.lookup(one.digest) is not None
        assert site.problems() == []


async def test_layers_that_are_not_there_are_named_and_nothing_happens(site: NativeSite, tmp_path: Path) -> None:
    one, two = (tar_archive(tmp_path, layer(seed)) for seed in ("one", "two"))
    async with site.opened() as repository:
        await publish(repository, one)
    access = RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys)
    before = access.verify()
    with pytest.raises(NativeError, match=f"does not hold {two.digest}: nothing has been removed"):
        remove_layers(access, [one.digest, two.digest], state=None)
    assert access.verify() == before


async def test_numbers_rise_even_after_a_restore(site: NativeSite, tmp_path: Path) -> None:
    """A repository from a backup must not give out a number that clients have seen."""
    one, two = (tar_archive(tmp_path, layer(seed)) for seed in ("one", "two"))
    names = (".cvmfspublished", ".cvmfsreflog")
    async with site.opened() as repository:
        await publish(repository, one)
        saved = {name: (site.root / name).read_bytes() for name in names}
        assert await publish(repository, two) == 3
    for name, content in saved.items():
        (site.root / name).write_bytes(content)
    place = (NATIVE_NAME, "--directory", site.root, "--keys", site.keys.key.parent, "--state", site.state)
    assert thin_repository("remove", *place, one.digest, "--json").document["revision"] == 4
    async with site.opened() as repository:
        assert await publish(repository, two) == 5
    assert site.problems() == []
