"""Stores of podman's in repositories of either kind: in the revision of their images, and read back by the next one."""

import gzip
import json
import os
import stat
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.common.archive.model import LayerArchive, MediaType
from services.common.digest import Digest
from services.common.image_outputs import FlatOutput, ImageOutputs, PodmanOutput
from services.common.layout import LayerLayout
from services.repository.directory.repository import DirectoryRepository
from services.repository.errors import ImageAdditionError, LayerRemovalError
from services.repository.image_platforms import platform_images
from services.repository.images import ImageDocuments
from services.repository.interface import Repository
from services.repository.native.trust.keyring import KeyFiles
from tests.support.cvmfs_client import ClientView
from tests.support.images import change, image_of_layers
from tests.support.native import NATIVE_NAME, NativeSite, tar_archive
from tests.support.publisher import make_layer, verified
from tests.support.tars import archive, member

_NAME = "quay.io/ns/tool:v1"
_PODMAN = ImageOutputs(podman=PodmanOutput())


@dataclass(frozen=True)
class Site:
    """A repository, and a tree that shows it."""

    repository: Repository
    root: Path
    refresh: Callable[[], object]
    problems: Callable[[], list[str]]

    def rows(self, file: str, store: str = "podmanStore") -> list[dict[str, Any]]:
        """Read a list of a store."""
        self.refresh()
        return list(json.loads((self.root / store / file).read_bytes()))

    def images(self, store: str = "podmanStore") -> dict[str, list[str]]:
        """Return the names of the images of a store by their identifiers."""
        return {row["id"]: row["names"] for row in self.rows("overlay-images/images.json", store)}

    def layers(self, store: str = "podmanStore") -> set[str]:
        """Return the directories of layers, and make sure that they are those of the list and all links lead there."""
        listed = {row["id"] for row in self.rows("overlay-layers/layers.json", store)}
        overlay = self.root / store / "overlay"
        for link in (overlay / "l").iterdir():
            assert link.readlink().parent.parent == Path("..")
            assert (overlay / "l" / link.readlink()).is_symlink() or (overlay / "l" / link.readlink()).is_dir()
        assert listed <= {path.name for path in overlay.iterdir()}
        return listed


@pytest.fixture(params=["directory", "native"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """An empty repository of each kind."""
    root = tmp_path / "seen"
    async with AsyncExitStack() as stack:
        if request.param == "native":
            keys = KeyFiles(tmp_path / "keys", NATIVE_NAME)
            keys.complete(now=datetime.now(UTC))
            native = NativeSite(root=tmp_path / "native", state=tmp_path / "state", keys=keys)
            native.create()
            repository: Repository = await stack.enter_async_context(native.opened())
            view = ClientView(stack.enter_context(native.reader()), root)
            yield Site(repository, root, view.update, native.problems)
        else:
            threads = stack.enter_context(ThreadPoolExecutor(4))
            repository = await stack.enter_async_context(
                DirectoryRepository(name=NATIVE_NAME, root=root, layout=LayerLayout.FLAT, threads=threads)
            )
            yield Site(repository, root, lambda: None, list)


@pytest.fixture
def layers(tmp_path: Path) -> list[LayerArchive]:
    """Three layers, the second of which deletes something."""
    tree = tmp_path / "middle.tree/opaque"
    tree.mkdir(parents=True)
    os.setxattr(tree, "trusted.overlay.opaque", b"y")
    os.mknod(tmp_path / "middle.tree/base", stat.S_IFCHR, os.makedev(0, 0))
    return [make_layer(tmp_path, name) for name in ("base", "middle", "top")]


def _config(image: ImageDocuments) -> Digest:
    return platform_images(image)[0].config_digest


async def test_an_image_is_in_its_store_and_flat_in_one_revision(site: Site, layers: list[LayerArchive]) -> None:
    outputs = ImageOutputs(flat=FlatOutput(), podman=PodmanOutput())
    image = image_of_layers(_NAME, ("amd64", layers), outputs=outputs)
    first = await change(site.repository, layers=layers, put=[image])
    assert site.images() == {_config(image): [_NAME]}
    assert len(site.layers()) == 3
    assert (site.root / _NAME / "name").read_text() == "top"
    assert site.problems() == []
    # What is there already is not written again.
    before = os.stat(site.root / "podmanStore/overlay" / max(site.layers()))
    second = await change(site.repository, put=[image])
    assert site.images() == {_config(image): [_NAME]}
    assert os.stat(site.root / "podmanStore/overlay" / max(site.layers())).st_ino == before.st_ino
    assert (first, second) == (first, first + 1 if first is not None else None)


async def test_whatever_lost_its_name_stays_until_it_is_taken_out(site: Site, layers: list[LayerArchive]) -> None:
    old = image_of_layers(_NAME, ("amd64", layers), outputs=_PODMAN)
    new = image_of_layers(_NAME, ("amd64", layers[:1]), outputs=_PODMAN)
    await change(site.repository, layers=layers, put=[old])
    await change(site.repository, put=[new])
    assert site.images() == {_config(old): [], _config(new): [_NAME]}
    assert len(site.layers()) == 3
    await _take_out(site, _config(old))
    assert site.images() == {_config(new): [_NAME]}
    assert len(site.layers()) == 1
    await change(site.repository, remove=[_NAME])
    assert site.images() == {_config(new): []}
    await _take_out(site, _config(new))
    assert (site.images(), site.layers()) == ({}, set())
    # In a directory, what is in no list goes with the next batch that changes the store.
    await change(site.repository, put=[new])
    await change(site.repository, put=[image_of_layers("quay.io/ns/other:v1", ("amd64", layers[:1]), outputs=_PODMAN)])
    site.refresh()
    assert {path.name for path in (site.root / "podmanStore/overlay").iterdir()} == {"l", *site.layers()}
    assert len(list((site.root / "podmanStore/overlay/l").iterdir())) == 1
    assert site.problems() == []


async def _take_out(site: Site, config: Digest) -> None:
    async with site.repository.transaction("token") as transaction:
        await transaction.remove_flat(config)
        await transaction.publish()


async def test_a_layer_stays_while_an_image_in_a_store_stands_on_it(
    site: Site, layers: list[LayerArchive], tmp_path: Path
) -> None:
    content = archive(member(b"name", b"plain"))
    plain = tar_archive(tmp_path, content)
    # Podman knows a layer by its files, however they are packed: its row leads to the first archive of them.
    packed = replace(
        tar_archive(tmp_path, gzip.compress(content)),
        diff_id=plain.diff_id,
        uncompressed_size=plain.size,
        media_type=MediaType.TAR_GZIP,
    )
    old = image_of_layers(_NAME, ("amd64", [plain, layers[1]]), outputs=_PODMAN)
    new = image_of_layers(_NAME, ("amd64", [packed, layers[2]]), outputs=_PODMAN)
    layers = [plain, *layers[1:], packed]
    await change(site.repository, layers=layers, put=[old])
    await change(site.repository, put=[new])
    async with site.repository.transaction("token") as transaction:
        for layer in layers[:2]:
            with pytest.raises(LayerRemovalError, match=f"an image in podmanStore stands on layer {layer.digest}"):
                await transaction.remove_layer(layer.digest)
        await transaction.remove_flat(_config(old))
        with pytest.raises(LayerRemovalError, match="an image in podmanStore stands on"):
            await transaction.remove_layer(plain.digest)
        await transaction.remove_layer(layers[1].digest)
        await transaction.publish()
    found = [await site.repository.lookup(layer.digest) is not None for layer in layers]
    assert found == [True, False, True, True]
    assert site.images() == {_config(new): [_NAME]}
    assert site.problems() == []


async def test_stores_have_names_and_further_platforms_stores_of_their_own(
    site: Site, layers: list[LayerArchive]
) -> None:
    outputs = ImageOutputs(podman=PodmanOutput(store="atlas"))
    image = image_of_layers(_NAME, ("amd64", layers[:1]), ("arm64:v8", layers[1:]), outputs=outputs)
    await change(site.repository, layers=layers, put=[image])
    amd64, arm64 = (each.config_digest for each in platform_images(image))
    assert site.images("podmanStores/atlas") == {amd64: [_NAME]}
    assert site.images("podmanStores-arm64-v8/atlas") == {arm64: [_NAME]}
    # Another store from now on; nobody is called so in the former one any more.
    await change(site.repository, put=[image_of_layers(_NAME, ("amd64", layers[:1]), outputs=_PODMAN)])
    assert list(site.images().values()) == [[_NAME]]
    assert site.images("podmanStores/atlas") == {amd64: []}
    assert site.images("podmanStores-arm64-v8/atlas") == {arm64: []}
    await _take_out(site, arm64)
    assert site.images("podmanStores-arm64-v8/atlas") == {}
    assert site.problems() == []


async def test_an_image_whose_layer_is_not_there_is_no_part_of_the_revision(
    site: Site, layers: list[LayerArchive]
) -> None:
    good = image_of_layers(_NAME, ("amd64", layers[:1]), outputs=_PODMAN)
    bad = image_of_layers("quay.io/ns/bad:v1", ("amd64", layers[1:]), outputs=_PODMAN)
    prepared = await site.repository.prepare(verified(layers[0]))
    async with site.repository.transaction("token") as transaction:
        await transaction.add(prepared)
        with pytest.raises(ImageAdditionError, match="is not in the repository"):
            await transaction.put_image(bad)
        await transaction.put_image(good)
        await transaction.publish()
    await site.repository.discard(prepared)
    assert site.images() == {_config(good): [_NAME]}
    assert [str(name) for name in await site.repository.list_images()] == [_NAME]
