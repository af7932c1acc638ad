"""A publisher that is killed while it changes a store of podman's leaves the store of before or of after, and whole."""

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from services.common.archive.model import LayerArchive
from services.common.image_outputs import ImageOutputs, PodmanOutput
from services.repository.image_platforms import platform_images
from services.repository.images import ImageDocuments
from services.repository.native.trust.keyring import KeyFiles
from services.repository.podman.identity import big_data_file
from tests.support.directory_killed import opened_directory, put_until
from tests.support.images import change, image_of_layers
from tests.support.killed import kill_at, run_until, states_of_kills
from tests.support.native import NATIVE_NAME, NativeSite
from tests.support.native_killed import change_until
from tests.support.publisher import make_layer

_NAME = "quay.io/ns/tool:v1"
_IMAGES = "podmanStore/overlay-images/images.json"
_EARLY, _LAST = 2, 3
"""Of the steps of a native repository so many are looked at, and the last ones: before those, objects are written that
nobody names."""
_EVERY = 4
"""Of the steps in a directory every so many are looked at, and the last ones."""


@pytest.fixture
def layers(tmp_path: Path) -> list[LayerArchive]:
    """Two layers, the second of which has a mask."""
    tree = tmp_path / "top.tree/opaque"
    tree.mkdir(parents=True)
    os.setxattr(tree, "trusted.overlay.opaque", b"y")
    return [make_layer(tmp_path, "base"), make_layer(tmp_path, "top")]


@pytest.fixture
def images(layers: Sequence[LayerArchive]) -> tuple[ImageDocuments, ImageDocuments]:
    """What the name stands for before and after."""
    outputs = ImageOutputs(podman=PodmanOutput())
    one, two = (image_of_layers(_NAME, ("amd64", each), outputs=outputs) for each in (layers[:1], layers))
    return one, two


def _states(images: Sequence[ImageDocuments]) -> list[dict[str, list[str]]]:
    """Return what the store has before and after."""
    one, two = (platform_images(image)[0].config_digest for image in images)
    return [{one: [_NAME]}, {one: [], two: [_NAME]}]


def _read(root: Path) -> dict[str, list[str]]:
    """Return the names of the images in a store, whose lists, locks, directories and links must agree."""
    store = root / "podmanStore"
    lists = []
    for kind in ("images", "layers"):
        content = (store / f"overlay-{kind}/{kind}.json").read_bytes()
        assert (store / f"overlay-{kind}/{kind}.lock").read_text() == hashlib.sha256(content).hexdigest()
        lists.append(json.loads(content))
    for row in lists[1]:
        directory = store / "overlay" / row["id"]
        assert (directory / "diff").is_symlink()
        lower = (directory / "lower").read_text().split(":") if "parent" in row else []
        for short in (f"l/{(directory / 'link').read_text()}", *lower):
            assert os.path.lexists(store / "overlay/l" / (store / "overlay" / short).readlink())
    for row in lists[0]:
        for key, digest in row["big-data-digests"].items():
            content = (store / "overlay-images" / row["id"] / big_data_file(key)).read_bytes()
            assert digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {row["id"]: row["names"] for row in lists[0]}


def test_a_store_in_a_directory(
    tmp_path: Path,
    layers: list[LayerArchive],
    images: tuple[ImageDocuments, ImageDocuments],
    processes: ForkServerContext,
) -> None:
    before, states = tmp_path / "before", _states(images)

    async def publish(root: Path, *, new: Sequence[LayerArchive] = (), put: ImageDocuments) -> None:
        with ThreadPoolExecutor(2) as threads:
            async with opened_directory(root, threads) as repository:
                await repository.recover(())
                await change(repository, layers=new, put=[put])

    asyncio.run(publish(before, new=layers, put=images[0]))
    shutil.copytree(before, tmp_path / "whole", symlinks=True)
    status, steps = run_until(processes, put_until, tmp_path / "whole", images[1:], [], None)
    assert (status, _read(before), _read(tmp_path / "whole")) == (0, *states)
    assert steps is not None

    def killed(step: int) -> int:
        root = tmp_path / str(step)
        shutil.copytree(before, root, symlinks=True)
        kill_at(processes, step, put_until, root, images[1:], [])
        state = states.index(_read(root))
        asyncio.run(publish(root, put=images[1]))
        assert _read(root) == states[1]
        assert not list((root / "podmanStore").rglob(".new-*"))
        shutil.rmtree(root)
        return state

    killed_at = sorted({*range(2, steps, _EVERY), *range(steps - _LAST, steps + 1)})
    assert states_of_kills(killed, killed_at, after=1) == {0, 1}


def test_a_store_in_a_native_repository(
    tmp_path: Path,
    layers: list[LayerArchive],
    images: tuple[ImageDocuments, ImageDocuments],
    processes: ForkServerContext,
) -> None:
    keys, states = KeyFiles(tmp_path / "keys", NATIVE_NAME), _states(images)
    keys.complete(now=datetime.now(UTC))
    site = NativeSite(root=tmp_path / "native", state=tmp_path / "state", keys=keys)
    site.create()

    def read(site: NativeSite) -> dict[str, list[str]]:
        with site.newest() as newest:
            entry = newest.stat(f"/{_IMAGES}".encode())
            assert entry is not None
            return {row["id"]: row["names"] for row in json.loads(b"".join(newest.content(entry)))}

    async def publish(site: NativeSite, *, new: Sequence[LayerArchive] = (), put: ImageDocuments) -> None:
        async with site.opened() as repository:
            await change(repository, layers=new, put=[put])

    def copy(to: Path) -> NativeSite:
        shutil.copytree(site.root, to / "repository")
        shutil.copytree(site.state, to / "state")
        return replace(site, root=to / "repository", state=to / "state")

    asyncio.run(publish(site, new=layers, put=images[0]))
    whole, batch = copy(tmp_path / "whole"), (images[1:], ((), ()))
    status, steps = run_until(processes, change_until, whole, *batch, None)
    assert (status, read(site), read(whole)) == (0, *states)
    assert steps is not None

    def killed(step: int) -> int:
        mine = copy(tmp_path / str(step))
        kill_at(processes, step, change_until, mine, *batch)
        assert mine.problems() == []
        state = states.index(read(mine))
        asyncio.run(publish(mine, put=images[1]))
        assert (read(mine), mine.problems()) == (states[1], [])
        return state

    early = range(1, steps - _LAST, max(1, steps // _EARLY))
    assert states_of_kills(killed, [*early, *range(steps - _LAST, steps + 1)], after=1) == {0, 1}
