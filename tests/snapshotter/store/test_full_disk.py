"""A full disk: what is there is told, what cannot be made is not there, and what is removed makes room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpclib import GRPCError

from services.snapshotter.store.reserve import Reserve
from tests.snapshotter.conftest import Snapshotters
from tests.support.containerd import ContainerdClient, option

RESERVE = 8 << 20


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """The state on a small file system of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24M", "tmpfs", tmp_path], check=True)
    yield tmp_path / "snapshotter"
    subprocess.run(["umount", tmp_path], check=True)


def _fill(directory: Path) -> None:
    """Write until there is no room for a byte, as a container does that runs wild."""
    size = 1 << 20
    with (directory / f"large-{os.urandom(4).hex()}").open("wb", buffering=0) as file:
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


async def _full(client: ContainerdClient, key: str) -> list[str]:
    """Have a container fill the disk, and others come until none can; return the keys of all."""
    _fill(Path(option(await client.prepare(key, "base"), "upperdir")))
    keys, reason = [key], ""
    while not reason:
        # What has been written before may have left some room to write in.
        try:
            await client.prepare(f"{key}/{len(keys)}", "base")
            keys.append(f"{key}/{len(keys)}")
        except GRPCError as error:
            reason = error.message or ""
    assert "is full: remove containers or images" in reason or "No space left on device" in reason
    assert {info.name for info in await client.list()} == {"base", *keys}
    return keys


async def test_a_full_disk_can_be_emptied(snapshotters: Snapshotters, state: Path) -> None:
    async with snapshotters.running() as client:
        await client.layer("base", "", {"file": "x"})
        assert (state / "reserve").stat().st_blocks * 512 == RESERVE
        for round_ in range(2):
            keys = await _full(client, f"moby/{round_}/container")
            mount = await client.mounts(keys[0])
            assert (await client.stat(keys[0])).parent == "base"
            assert await client.mounts(keys[0]) == mount
            for key in reversed(keys):
                await client.remove(key)
            await client.cleanup()
            assert [info.name for info in await client.list()] == ["base"]
            assert [path.name for path in (state / "l").iterdir()] == ["1"]
            assert list((state / "trash").iterdir()) == []
            assert (state / "reserve").stat().st_blocks * 512 == RESERVE


async def test_a_full_disk_can_be_emptied_after_a_restart(snapshotters: Snapshotters, state: Path) -> None:
    async with snapshotters.running() as client:
        await client.layer("base", "", {"file": "x"})
        keys = await _full(client, "moby/1/container")
    async with snapshotters.running() as client:
        _fill(state / "l")
        assert {info.name for info in await client.list()} == {"base", *keys}
        for key in reversed(keys):
            await client.remove(key)
        await client.cleanup()
        await client.prepare("moby/2/container", "base")


def test_the_reserve_is_what_can_be_had(state: Path) -> None:
    state.mkdir()
    reserve = Reserve(state / "reserve")
    reserve.fill()
    reserve.fill()
    assert (state / "reserve").stat().st_blocks * 512 == RESERVE
    reserve.release()
    reserve.release()
    _fill(state)
    # Nothing of what somebody needs more.
    reserve.fill()
    assert not (state / "reserve").exists()
