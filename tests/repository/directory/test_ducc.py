"""Publishing into a tree whose images DUCC has made."""

import asyncio
import json
import os
import shutil
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from services.common.archive.model import LayerArchive
from services.common.image_outputs import NO_OUTPUTS, FlatOutput, ImageOutputs, PodmanOutput
from services.common.layout import LayerLayout
from services.repository.directory.repository import DirectoryRepository
from services.repository.errors import ImageAdditionError, LayerAdditionError, LayerRemovalError
from services.repository.images import ImageDocuments
from tests.support.directory_killed import change_until, opened_directory
from tests.support.ducc import DuccImage, DuccTree, paths_of_ducc
from tests.support.images import change, image_of_layers
from tests.support.killed import kill_at, run_until
from tests.support.native import tar_archive
from tests.support.publisher import REPOSITORY
from tests.support.tars import archive, member

_BASE = archive(
    member(b"bin/", typeflag=b"5", mode=0o755), member(b"bin/sh", b"shell", mode=0o4755), member(b"gone", b"soon")
)
_TOP = archive(member(b".wh.gone"), member(b"bin/tool", b"tool", uid=7, gid=8))
_OTHER = archive(member(b"other", b"other"))
_BOTH = ImageOutputs(flat=FlatOutput(), podman=PodmanOutput())
_TOOL, _ANOTHER = "quay.io/ns/tool:v1", "quay.io/ns/other:v1"

Tool = tuple[ImageDocuments, Sequence[LayerArchive], DuccImage]


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    """An image, as this suite and as DUCC know it."""
    archives = [tar_archive(tmp_path, layer) for layer in (_BASE, _TOP)]
    documents = image_of_layers(_TOOL, ("amd64", archives), outputs=_BOTH)
    return documents, archives, DuccImage.of(documents, (_BASE, _TOP))


@pytest.fixture
def tree(root: Path, tool: Tool) -> DuccTree:
    """A tree in which DUCC has made it, and another image."""
    tree = DuccTree(root)
    tree.convert(tool[2])
    tree.convert(DuccImage.made(_ANOTHER, [_BASE, _OTHER]))
    return tree


async def test_an_image_takes_the_place_of_what_ducc_made(
    tree: DuccTree, tool: Tool, threads: ThreadPoolExecutor
) -> None:
    documents, archives, image = tool
    before = paths_of_ducc(tree.root)
    held = os.open(tree.flat(image), os.O_PATH)
    layout = LayerLayout.DUCC
    async with DirectoryRepository(name=REPOSITORY, root=tree.root, layout=layout, threads=threads) as repository:
        await repository.recover(())
        assert [await repository.lookup(layer.digest) for layer in archives] == [None, None]
        assert await change(repository, layers=archives, put=[documents]) == 1
        assert all([await repository.lookup(layer.digest) for layer in archives])
        assert await repository.flats_of(documents.name) == {image.config_digest}
        assert await repository.read_image(documents.name) == documents.files
        _check(tree, image)
        # Whoever was in a directory of DUCC's is in it until the next batch.
        assert "gone" not in os.listdir(f"/proc/self/fd/{held}")
        assert ".cvmfscatalog" in os.listdir(f"/proc/self/fd/{held}")
        await change(repository)
    assert os.listdir(f"/proc/self/fd/{held}") == []
    os.close(held)
    assert not list((tree.root / ".batches").glob(".overtaken-*"))
    assert before.items() <= paths_of_ducc(tree.root).items()
    links = [path for path in tree.root.rglob("*") if path.is_symlink() and not path.exists()]
    assert [path for path in links if "podmanStore" not in path.parts] == []  # whose layers are below /cvmfs


def _check(tree: DuccTree, image: DuccImage) -> None:
    """Look at an image as this suite has published it, and at the other one of DUCC's."""
    flat = tree.root / _TOOL
    assert flat.resolve() == tree.flat(image).resolve()
    status = (flat / "bin/sh").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o4755)
    assert not (flat / "gone").exists()
    assert not (flat / ".cvmfscatalog").exists()
    for digest, names in zip(image.digests, ({"bin", "gone"}, {"bin"}), strict=True):
        assert {"layerfs", "layer.json"} <= set(os.listdir(tree.home(digest))) - {".metadata"}
        assert set(os.listdir(tree.home(digest) / "layerfs")) == names
    assert (tree.home(image.digests[1]) / "layerfs/bin/tool").stat().st_uid == 7
    assert (tree.root / _ANOTHER / "other").read_text() == "other"
    assert (tree.root / ".metadata" / _ANOTHER / "manifest.json").exists()
    store = tree.root / "podmanStore"
    images = json.loads((store / "overlay-images/images.json").read_bytes())
    assert {row["names"][0]: "digest" in row for row in images} == {_TOOL: True, _ANOTHER: False}
    layers = json.loads((store / "overlay-layers/layers.json").read_bytes())
    assert {row["id"] for row in layers} <= set(os.listdir(store / "overlay"))
    assert len(layers) == 3


def test_what_a_kill_leaves_is_made_good(
    tree: DuccTree, tool: Tool, processes: ForkServerContext, tmp_path: Path
) -> None:
    documents, archives, image = tool
    batch = (archives, [documents], ((), ()))
    whole = tmp_path / "whole"
    shutil.copytree(tree.root, whole, symlinks=True)
    status, steps = run_until(processes, change_until, whole, *batch, None)
    assert status == 0
    assert steps is not None

    async def recovered(root: Path) -> None:
        with ThreadPoolExecutor(2) as threads:
            async with opened_directory(root, threads) as repository:
                await repository.recover(())
                published.append(await repository.lookup(archives[0].digest) is not None)
                if not published[-1]:
                    assert paths_of_ducc(root).keys() == before
                    await change(repository, layers=archives, put=[documents])

    before = paths_of_ducc(tree.root).keys()
    published: list[bool] = []
    # One before the commit, and one of those after it, which each bring one thing into the place of another.
    for step in (steps // 3, steps - 4):
        root = tmp_path / str(step)
        shutil.copytree(tree.root, root, symlinks=True)
        kill_at(processes, step, change_until, root, *batch)
        assert (root / _TOOL / "bin/tool").read_text() == "tool"  # whoever has made it
        asyncio.run(recovered(root))
        _check(DuccTree(root), image)
    assert published == [False, True]


async def test_a_layer_stays_while_an_image_of_duccs_in_a_store_stands_on_it(
    tree: DuccTree, tool: Tool, threads: ThreadPoolExecutor
) -> None:
    archives = tool[1]
    thin = image_of_layers(_TOOL, ("amd64", archives))
    layout = LayerLayout.DUCC
    async with DirectoryRepository(name=REPOSITORY, root=tree.root, layout=layout, threads=threads) as repository:
        await repository.recover(())
        await change(repository, layers=archives, put=[thin])
        async with repository.transaction("token") as transaction:
            with pytest.raises(LayerRemovalError, match="an image in podmanStore stands on"):
                await transaction.remove_layer(archives[0].digest)


async def test_what_is_not_duccs_is_left_where_it_is(tree: DuccTree, tool: Tool, threads: ThreadPoolExecutor) -> None:
    documents, archives, image = tool
    (tree.home(image.digests[0]) / "thing").touch()
    (tree.root / ".metadata" / _TOOL / "thing").mkdir()
    async with opened_directory(tree.root, threads) as repository:
        await repository.recover(())
        with pytest.raises(LayerAdditionError, match="is there already"):
            await change(repository, layers=archives)
        with pytest.raises(ImageAdditionError, match="is there already"):
            await change(repository, put=[replace(documents, outputs=NO_OUTPUTS)])
