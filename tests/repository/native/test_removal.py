"""Layers are removed in a new revision, and collected afterwards."""

import dataclasses
import hashlib
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from services.common.layout import LayerLayout, layer_home, layer_tree
from services.repository.native.access import RepositoryAccess
from services.repository.native.collection.collector import Collector
from services.repository.native.collection.retention import Retention
from services.repository.native.errors import NativeError
from services.repository.native.reader.catalog import Catalog
from services.repository.native.reader.database import Database
from services.repository.native.records import EntryFlag, ObjectKind
from services.repository.native.removal import remove_layers
from services.repository.native.writer.catalog import Catalog as WrittenCatalog
from services.repository.native.writer.head import Root
from services.repository.native.writer.layer_catalog import HOME
from tests.support.native import NATIVE_NAME, NativeSite, layers_of_one_shelf, publish, tar_archive
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
        assert removed == {"removed": [one.digest], "flats": [], "revision": 3}
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


async def test_all_catalogs_of_a_layer_are_collected_after_it(site: NativeSite, tmp_path: Path) -> None:
    """And none of a layer that stays, before or after."""
    gone, kept = (
        tar_archive(tmp_path, archive(*(member(b"%s/%d/%d" % (top, number // 60, number)) for number in range(4200))))
        for top in (b"one", b"two")
    )
    others = [tar_archive(tmp_path, layer(seed)) for seed in ("1", "2", "3")]

    def access(clock: Callable[[], float] = time.time) -> RepositoryAccess:
        return RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys, clock=clock)

    def collect() -> set[str]:
        """Collect what was there a day ago; return the catalogs that are left."""

        def tomorrow() -> float:
            return time.time() + 24 * 3600

        Collector(
            access=access(tomorrow),
            retention=Retention(revisions=1, days=0),
            forget=lambda _digests: None,
            patience=0,
            clock=tomorrow,
        ).collect()
        assert site.problems() == []
        with site.newest() as revision:
            assert len(list(revision.walk(f"/{layer_tree(kept.digest)}".encode()))) == 1 + 1 + 70 + 4200
        return {found.path for found in site.storage.list("data/") if found.path.endswith(ObjectKind.CATALOG)}

    async with site.opened() as repository:
        await publish(repository, gone, kept)
        with site.newest() as revision:
            paths = (f"/{layer_home(gone.digest)}", f"/{layer_tree(gone.digest)}/one")
            catalogs = {revision.catalog_of(path.encode()).hash.path(ObjectKind.CATALOG) for path in paths}
        assert len(catalogs) == 2
        await publish(repository, others[0])
        assert collect() >= catalogs
        remove_layers(access(), [gone.digest], state=None)
        assert collect() >= catalogs  # the revision before the head has a tag
        await publish(repository, others[1])
        assert not collect() & catalogs
        # What comes back is whole again.
        await publish(repository, gone)
        await publish(repository, others[2])
        assert collect() >= catalogs


async def test_inodes_are_dense_after_a_removal(site: NativeSite, tmp_path: Path) -> None:
    """Clients reserve an inode for every number up to the largest."""
    gone, *kept = (tar_archive(tmp_path, made) for made in layers_of_one_shelf(3))
    async with site.opened() as repository:
        await publish(repository, gone)
        await publish(repository, *kept)
    remove_layers(
        RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys), [gone.digest], state=None
    )
    with site.newest() as revision:
        for path in (b"", b"/.layers/" + gone.digest[:2].encode()):
            database = Database.load(site.storage, revision.catalog_of(path).hash, ObjectKind.CATALOG)
            with closing(Catalog(database, path=path)) as catalog:
                numbers = [row.rowid for row in catalog.rows()]
                assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert site.problems() == []


async def test_only_a_layers_own_link_is_removed_with_it(site: NativeSite, tmp_path: Path) -> None:
    """An imported repository may have something else of this name in its root, even a tree."""
    ducc = dataclasses.replace(site, layout=LayerLayout.DUCC)
    made = tar_archive(tmp_path, layer("one"))
    async with ducc.opened() as repository:
        await publish(repository, made)
    access = RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys)
    place = b"/" + made.digest.encode()
    with (
        access.changing() as previous,
        closing(WrittenCatalog(access.get(previous.root, ObjectKind.CATALOG), where="the root catalog")) as root,
    ):
        root.insert(HOME._replace(links=2).row(place, EntryFlag.DIRECTORY), "self_dir")
        root.link_directories(b"", 1)
        revision, published = previous.revision + 1, previous.published + 1
        root.set_properties({"revision": str(revision), "previous_revision": str(previous.root)})
        catalog = access.put(root.content(), ObjectKind.CATALOG)
        access.head.publish(
            Root(catalog=catalog, size=len(root.content()), revision=revision, published=published), previous=previous
        )
    remove_layers(access, [made.digest], state=None)
    with site.newest() as newest:
        entry = newest.stat(place)
        assert entry is not None
        assert entry.is_directory
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
