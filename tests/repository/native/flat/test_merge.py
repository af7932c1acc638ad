"""A flat image in a native repository shows what the kernel's overlay of its layers shows."""

import asyncio
import dataclasses
import os
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings

from harness.trees import Entry, Tree, differences
from services.common.archive.model import LayerArchive
from services.common.archive.nametree import Directory
from services.repository.image_platforms import platform_images
from services.repository.native.flat import catalogs
from services.repository.native.writer.cuts import choose_cuts
from services.repository.outputs import FlatOutput, ImageOutputs
from tests.support.images import change, image_of_layers
from tests.support.layer_stacks import by_overlay, stacks
from tests.support.native import NativeSite, tar_archive
from tests.support.native_trees import read_flat

_FLAT = ImageOutputs(flat=FlatOutput())


def everywhere(root: Directory) -> dict[bytes, int]:
    """Cut at every directory where a catalog may begin."""
    cuts = {b""}
    waiting = [(root, b"")]
    while waiting:
        directory, path = waiting.pop()
        for name, node in directory.items():
            if isinstance(node, Directory):
                inner = path + b"/" + name if path else name
                waiting.append((node, inner))
                with suppress(UnicodeDecodeError):
                    inner.decode()
                    cuts.add(inner)
    return dict.fromkeys(cuts, 1)


def _mended(path: bytes, entry: Entry) -> Entry:
    """Give an entry what flat images add, and leave it no links across directories, which CVMFS does not have."""
    added = {"directory": 0o700, "file": 0o400}.get(entry.kind, 0)
    links = tuple(other for other in entry.links if os.path.dirname(other) == os.path.dirname(path))
    return dataclasses.replace(entry, mode=entry.mode | added, links=links if len(links) > 1 else ())


@pytest.mark.parametrize("cuts", [choose_cuts, everywhere], ids=["chosen", "everywhere"])
def test_any_stack_is_what_overlayfs_shows(
    site: NativeSite,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    cuts: Callable[[Directory], dict[bytes, int]],
) -> None:
    """Wherever its catalogs are split."""
    monkeypatch.setattr(catalogs, "choose_cuts", cuts)
    with asyncio.Runner() as runner:
        opened = site.opened()
        repository = runner.run(opened.__aenter__())
        published: set[str] = set()

        @settings(max_examples=15, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
        @given(stacks())
        def check(archives: list[bytes]) -> None:
            directory = tmp_path_factory.mktemp("stack")
            layers = [tar_archive(directory, archive) for archive in archives]
            shown = runner.run(_flat(layers))
            overlay: Tree = {path: _mended(path, entry) for path, entry in by_overlay(archives, directory).items()}
            assert differences(shown, overlay, names=("flat", "overlay")) == []

        async def _flat(layers: list[LayerArchive]) -> Tree:
            image = image_of_layers("quay.io/ns/tool:v1", ("amd64", layers), outputs=_FLAT)
            new = {layer.digest: layer for layer in layers if layer.digest not in published}
            await change(repository, layers=list(new.values()), put=[image])
            published.update(new)
            (platform,) = platform_images(image)
            with site.newest() as revision:
                return read_flat(revision, platform)

        check()
        runner.run(opened.__aexit__(None, None, None))
    assert site.problems() == []
