"""Filling a layer: all of it or nothing."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.common.archive.limits import ArchiveLimits
from services.common.deletion import TreeDeletionError
from services.node.errors import UnsupportedError
from services.node.filling import LayerFiller
from services.node.layers import Layer, LayerId, LayerKind, LayerStore
from tests.support.driver import chunks, contents, tar_of


@pytest.fixture
def filler() -> LayerFiller:
    return LayerFiller(limits=ArchiveLimits())


@pytest.fixture
def layer(home: Path) -> Layer:
    return LayerStore(home).create(LayerId("a"), None, LayerKind.IMAGE)


@pytest.fixture
def immutable(layer: Layer) -> Iterator[Path]:
    """A file in the way, as of an earlier attempt."""
    layer.incoming.mkdir()
    file = layer.incoming / "immutable"
    file.touch()
    subprocess.run(["chattr", "+i", file], check=True)
    yield file
    subprocess.run(["chattr", "-i", file], check=True)


async def test_what_was_there_is_replaced(filler: LayerFiller, layer: Layer) -> None:
    for files in ({"one/file": "first"}, {"other": "second"}):
        await filler.fill(layer, chunks(tar_of(dict(files))))
        assert contents(layer.diff) == files
        assert sorted(os.listdir(layer.directory)) == ["diff", "record.json", "work"]
    assert layer.diff.stat().st_mode & 0o7777 == 0o755


async def test_a_layer_without_its_directory_gets_one(filler: LayerFiller, layer: Layer) -> None:
    """As versions before this one could leave it, when they were killed."""
    layer.diff.rmdir()
    await filler.fill(layer, chunks(tar_of({"file": "content"})))
    assert contents(layer.diff) == {"file": "content"}


async def test_an_empty_stream_is_no_layer(filler: LayerFiller, layer: Layer) -> None:
    await filler.fill(layer, chunks(tar_of({"file": "content"})))
    with pytest.raises(UnsupportedError, match="layer a: the layer tar is empty, not even an end mark: try again"):
        await filler.fill(layer, chunks(b""))
    assert contents(layer.diff) == {"file": "content"}


async def test_what_is_in_the_way_is_named(filler: LayerFiller, layer: Layer, immutable: Path) -> None:
    with pytest.raises(TreeDeletionError, match=f"{immutable}' cannot be deleted: Operation not permitted"):
        await filler.fill(layer, chunks(tar_of({"file": "content"})))
    assert contents(layer.diff) == {}
