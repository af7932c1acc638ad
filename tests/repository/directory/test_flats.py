"""Flat images in a directory: made with their image's batch, once, and gone when they are to go."""

import asyncio
import dataclasses
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from harness.trees import read_directory
from services.common.archive.model import LayerArchive
from services.common.digest import Digest
from services.common.image_outputs import FlatOutput, ImageOutputs
from services.repository.directory.repository import DirectoryRepository
from services.repository.errors import ImageAdditionError, ImageRefusedError
from services.repository.image_platforms import platform_images
from services.repository.images import ImageDocuments
from services.repository.public_names import flat_home
from tests.support.directory_killed import opened_directory, put_until
from tests.support.images import change, image_of_layers
from tests.support.killed import kill_at, run_until
from tests.support.native import tar_archive
from tests.support.tars import archive, member

_FLAT = ImageOutputs(flat=FlatOutput())
_OPEN = ImageOutputs(flat=FlatOutput(others_read=True))
_CREATED = 1714979289  # as `image_of_layers` says


@pytest.fixture
async def repository(root: Path, threads: ThreadPoolExecutor) -> AsyncIterator[DirectoryRepository]:
    async with opened_directory(root, threads) as repository:
        await repository.recover(())
        yield repository


def _layers(directory: Path) -> list[LayerArchive]:
    base = archive(
        member(b"bin/", typeflag=b"5", mode=0o755, mtime=3),
        member(b"bin/tool", b"old", mode=0o4755),
        member(b"etc/", typeflag=b"5", mode=0o500, mtime=3),
        member(b"etc/shadow", b"secret", mode=0),
        member(b"gone", b"gone"),
        member(b".singularity.d", typeflag=b"2", link=b"/etc"),
        member(b"var", typeflag=b"2", link=b"etc"),
    )
    top = archive(
        member(b".wh.gone", b""), member(b"bin/", typeflag=b"5", mode=0o711, mtime=4), member(b"bin/tool", b"new")
    )
    return [tar_archive(directory, content) for content in (base, top)]


def _image(
    layers: Sequence[LayerArchive], outputs: ImageOutputs = _FLAT, name: str = "quay.io/ns/tool:v1"
) -> ImageDocuments:
    return image_of_layers(name, ("amd64", layers), outputs=outputs, config={"Cmd": ["/bin/tool"]})


def _config(image: ImageDocuments) -> Digest:
    return platform_images(image)[0].config_digest


def _flat(root: Path, image: ImageDocuments) -> Path:
    return root / flat_home(_config(image))


async def test_a_flat_image_is_there_with_its_image(
    repository: DirectoryRepository, root: Path, tmp_path: Path
) -> None:
    layers = _layers(tmp_path)
    image = _image(layers)
    await change(repository, layers=layers, put=[image])
    tree = read_directory(_flat(root, image))
    assert (tree[b"bin"].mode, tree[b"bin"].mtime) == (0o711, 4 * 10**9)
    assert (tree[b"bin/tool"].size, tree[b"bin/tool"].mode) == (3, 0o644)
    assert (_flat(root, image) / "bin/tool").read_text() == "new"
    assert (tree[b"etc"].mode, tree[b"etc"].mtime) == (0o700, 3 * 10**9)
    assert tree[b"etc/shadow"].mode == 0o400
    assert b"gone" not in tree
    # What the image has in the place of generated entries leads nowhere, and keeps what is only made if missing.
    assert tree[b".singularity.d"].kind == "directory"
    assert (_flat(root, image) / ".singularity.d/runscript").read_text().count("'/bin/tool'") == 1
    assert tree[b"var"].target == b"etc"
    assert b"etc/tmp" not in tree
    assert (tree[b"etc/hosts"].size, tree[b"etc/hosts"].mode) == (0, 0o644)
    assert (tree[b"."].mode, tree[b"."].uid, tree[b"."].mtime) == (0o755, 0, _CREATED * 10**9)
    assert {entry.mtime for path, entry in tree.items() if path.startswith(b".singularity.d")} == {_CREATED * 10**9}


async def test_an_image_that_wants_none_has_none(repository: DirectoryRepository, root: Path, tmp_path: Path) -> None:
    layers = _layers(tmp_path)
    await change(repository, layers=layers, put=[_image(layers, ImageOutputs())])
    assert not (root / ".flat").exists()


async def test_one_that_is_there_is_not_made_again(repository: DirectoryRepository, root: Path, tmp_path: Path) -> None:
    layers = _layers(tmp_path)
    image = _image(layers)
    await change(repository, layers=layers, put=[image, _image(layers, name="quay.io/ns/same:v1")])
    before = _flat(root, image).resolve()
    await change(repository, put=[image])
    assert _flat(root, image).resolve() == before
    assert [path.name for path in root.glob(".batches/.batch-*/flats/*")] == [_config(image)]


async def test_other_permissions_replace_it_and_readers_keep_what_they_have(
    repository: DirectoryRepository, root: Path, tmp_path: Path
) -> None:
    layers = _layers(tmp_path)
    image = _image(layers)
    await change(repository, layers=layers, put=[image])
    held = _flat(root, image).resolve()
    await change(repository, put=[_image(layers, _OPEN)])
    assert (_flat(root, image) / "etc/shadow").lstat().st_mode & 0o777 == 0o404
    assert (held / "bin/tool").read_text() == "new"
    await change(repository)
    assert not held.exists()
    assert (_flat(root, image) / "etc/shadow").exists()


async def test_one_is_removed_with_the_next_batch_at_the_latest(
    repository: DirectoryRepository, root: Path, tmp_path: Path
) -> None:
    layers = _layers(tmp_path)
    image = _image(layers)
    await change(repository, layers=layers, put=[image])
    held = _flat(root, image).resolve()
    for _ in range(2):  # the second time, there is none
        async with repository.transaction("token") as transaction:
            await transaction.remove_flat(_config(image))
            await transaction.publish()
        assert not os.path.lexists(_flat(root, image))
    assert not held.exists()
    # The layers stay what they are without it, and it comes back.
    await change(repository, put=[image])
    assert (_flat(root, image) / "bin/tool").read_text() == "new"


async def test_one_outlives_its_layers(repository: DirectoryRepository, root: Path, tmp_path: Path) -> None:
    layers = _layers(tmp_path)
    image = _image(layers)
    await change(repository, layers=layers, put=[image])
    await change(repository, remove_layers=[layer.digest for layer in layers])
    await change(repository)
    assert (_flat(root, image) / "bin/tool").read_text() == "new"


async def test_every_platform_has_its_own(repository: DirectoryRepository, root: Path, tmp_path: Path) -> None:
    layers = [tar_archive(tmp_path, archive(member(b"machine", name))) for name in (b"amd64", b"arm64")]
    image = image_of_layers("quay.io/ns/tool:v1", ("amd64", layers[:1]), ("arm64:v8", layers[1:]), outputs=_FLAT)
    await change(repository, layers=layers, put=[image])
    configs = [platform.config_digest for platform in platform_images(image)]
    assert [(root / flat_home(config) / "machine").read_text() for config in configs] == ["amd64", "arm64"]


async def test_a_transaction_that_is_not_published_leaves_nothing(
    repository: DirectoryRepository, root: Path, tmp_path: Path
) -> None:
    layers = _layers(tmp_path)
    await change(repository, layers=layers)
    async with repository.transaction("token") as transaction:
        await transaction.put_image(_image(layers))
    assert list(root.glob(".batches/.staging-*")) == []
    assert not (root / ".flat").exists()


async def test_what_is_missing_or_in_the_way_is_told_and_nothing_is_changed(
    repository: DirectoryRepository, root: Path, tmp_path: Path
) -> None:
    layers = _layers(tmp_path)
    await change(repository, layers=layers[:1])
    missing, foreign = _image(layers), _image(layers[:1])
    broken = image_of_layers("quay.io/ns/tool:v1", ("amd64", layers[:1]), outputs=_FLAT, config={"Cmd": ["\0"]})
    _flat(root, foreign).mkdir(parents=True)
    async with repository.transaction("token") as transaction:
        with pytest.raises(ImageAdditionError, match=f"layer {layers[1].digest} is not in the repository"):
            await transaction.put_image(missing)
        with pytest.raises(ImageAdditionError, match="remove it by hand"):
            await transaction.put_image(foreign)
        with pytest.raises(ImageAdditionError, match="remove it by hand"):
            await transaction.remove_flat(_config(foreign))
        with pytest.raises(ImageRefusedError, match="NUL byte"):
            await transaction.put_image(broken)
        await transaction.publish()
    assert await repository.list_images() == []
    assert not list(root.glob(".batches/.batch-*/flats/*"))
    assert list(_flat(root, foreign).iterdir()) == []


async def test_a_cancelled_one_leaves_nothing(
    repository: DirectoryRepository, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = _layers(tmp_path)
    await change(repository, layers=layers)
    begun, loop, link = asyncio.Event(), asyncio.get_running_loop(), os.link

    def tell(*arguments: object, **named: object) -> None:
        loop.call_soon_threadsafe(begun.set)
        link(*arguments, **named)  # type: ignore[arg-type] # handed on

    monkeypatch.setattr(os, "link", tell)

    async def put() -> None:
        async with repository.transaction("token") as transaction:
            await transaction.put_image(_image(layers))
            await asyncio.Event().wait()

    task = asyncio.create_task(put())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(root.glob(".batches/.staging-*")) == []


async def test_what_a_kill_leaves_is_mended(
    root: Path, threads: ThreadPoolExecutor, tmp_path: Path, processes: ForkServerContext
) -> None:
    """Here while flat images are made, and while links are changed at the end; every step is the test of batches'."""
    layers = _layers(tmp_path)
    moved, gone, new = (
        image_of_layers(f"quay.io/ns/{name}:v1", ("amd64", layers), outputs=_FLAT, config={"Cmd": [name]})
        for name in ("moved", "gone", "new")
    )
    put = [dataclasses.replace(moved, outputs=_OPEN), new]

    def seen() -> list[int | None]:
        files = [_flat(root, image) / "etc/shadow" for image in (moved, gone, new)]
        return [file.stat().st_mode & 0o777 if file.exists() else None for file in files]

    async def recover() -> None:
        async with opened_directory(root, threads) as repository:
            await repository.recover(())

    async with opened_directory(root, threads) as repository:
        await repository.recover(())
        await change(repository, layers=layers, put=[moved, gone])
    before, after = [0o400, 0o400, None], [0o404, None, 0o400]
    assert seen() == before
    whole = tmp_path / "whole"
    shutil.copytree(root, whole, symlinks=True)
    status, steps = run_until(processes, put_until, whole, put, [_config(gone)], None)
    assert (status, steps is not None) == (0, True)
    for step in (60, steps or 0):
        kill_at(processes, step, put_until, root, put, [_config(gone)])
        assert bool(list(root.glob(".batches/.staging-*/flats/*"))) == (step == 60)
        await recover()
        assert seen() == (before if step == 60 else after)
        assert list(root.glob(".batches/.staging-*")) == []
