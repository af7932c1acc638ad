"""Who holds a union: counts that outlive this program, and that a front end gets wrong."""

import dataclasses
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.node.errors import MountError
from tests.node.conftest import Core
from tests.support.driver import contents
from tests.support.mounts import mounts_below, unmount_all_below
from tests.support.repositories import Repository


@pytest.fixture(autouse=True)
async def _unmount(core: Core, mounting: None) -> AsyncIterator[None]:  # noqa: ARG001 - ends after this
    yield
    for layer_id in core.unions.mounted():
        await core.unions.discard(layer_id)


async def test_gets_and_puts_in_pairs(core: Core) -> None:
    core.add("base", None, {"a": "base"})
    layer = core.add("c", "base", container=True)
    first = await core.mount(layer)
    assert await core.mount(layer) == first
    assert mounts_below(core.home) == [str(first)]
    assert not await core.unions.release(layer.id)
    assert contents(first) == {"a": "base"}
    assert await core.unions.release(layer.id)
    assert mounts_below(core.home) == []
    assert not first.exists()


async def test_a_put_at_zero_does_nothing(core: Core) -> None:
    core.add("base", None, {"a": "base"})
    layer = core.add("c", "base", container=True)
    for _ in range(2):
        assert await core.unions.release(layer.id)
    union = await core.mount(layer)
    assert contents(union) == {"a": "base"}
    assert await core.unions.release(layer.id)
    assert mounts_below(core.home) == []


async def test_discarding_unmounts_whatever_the_count_says(core: Core) -> None:
    core.add("base")
    layer = core.add("c", "base", container=True)
    for _ in range(3):
        union = await core.mount(layer)
    with (union / "busy").open("w"):
        await core.unions.discard(layer.id)
    assert mounts_below(core.home) == []
    assert layer.id not in core.unions
    await core.mount(layer)
    assert await core.unions.release(layer.id)


async def test_a_mounted_union_is_taken_over_after_a_restart(core: Core, repository: Repository) -> None:
    core.add_thin("thin", None, [repository.publish("one", {"a": "one"}, whiteouts=[b"x"])])
    layer = core.add("c", "thin", container=True)
    union = await core.mount(layer)
    again = dataclasses.replace(core)
    adopted = await again.unions.adopt()
    assert list(adopted) == [layer]
    # The layer, its mask; the container's own layer is no lower one.
    assert len(adopted[layer] or ()) == 2
    # Another get and its put, as of `docker cp`, leave the container's file system alone.
    assert await again.mount(layer) == union
    assert not await again.unions.release(layer.id)
    assert contents(union) == {"a": "one"}
    assert mounts_below(core.home) == [str(union)]
    assert await again.unions.release(layer.id)
    assert mounts_below(core.home) == []


async def test_a_union_that_is_hidden_after_a_restart_is_mounted_a_second_time(core: Core) -> None:
    """As a managed plugin finds it whose directory the engine has mounted anew: containers alone have the first one."""
    core.add("base", None, {"a": "base"})
    layer = core.add("c", "base", container=True)
    idle = core.add("idle", "base", container=True)
    union = await core.mount(layer)
    await core.mount(idle)
    await core.unions.release(idle.id)
    idle.merged.mkdir()
    container = os.open(union, os.O_PATH)
    unmount_all_below(core.home)
    again = dataclasses.replace(core)
    assert await again.unions.adopt() == {layer: None}
    await again.unions.begin()
    # What the engine does for a container that it finds running; the mount point stays, where `docker exec` starts.
    assert await again.mount(layer) == union
    assert not await again.unions.release(layer.id)
    assert contents(union) == {"a": "base"}
    assert mounts_below(core.home) == [str(union)]
    os.close(container)
    assert await again.unions.release(layer.id)
    assert mounts_below(core.home) == []


async def test_a_killed_process_leaves_the_count_to_the_next(core: Core) -> None:
    """An engine that was committing when its driver died gives back what it had taken for the commit."""
    core.add("base", None, {"a": "base"})
    layer = core.add("c", "base", container=True)
    union = await core.mount(layer)
    for _ in range(2):
        await core.mount(layer)
    await core.unions.release(layer.id)
    again = dataclasses.replace(core)
    await again.unions.adopt()
    assert not await again.unions.release(layer.id)
    assert contents(union) == {"a": "base"}
    assert await again.unions.release(layer.id)
    assert mounts_below(core.home) == []


@pytest.mark.parametrize("content", ["", "x", "0", "-5"])
async def test_a_mounted_union_is_held_once_at_least(core: Core, content: str) -> None:
    core.add("base", None, {"a": "base"})
    layer = core.add("c", "base", container=True)
    await core.mount(layer)
    (layer.directory / "held").write_text(content)
    again = dataclasses.replace(core)
    assert list(await again.unions.adopt()) == [layer]
    assert layer.id in again.unions
    assert await again.unions.release(layer.id)


async def test_a_new_front_end_begins_with_one_for_each_mounted_union(core: Core) -> None:
    """An engine that was killed never gives back what it held."""
    core.add("base", None, {"a": "base"})
    layer = core.add("c", "base", container=True)
    for _ in range(3):
        await core.mount(layer)
    for unions in (core.unions, dataclasses.replace(core).unions):
        await unions.adopt()
        await unions.begin()
        # What it does for a container that it finds running.
        await unions.acquire(layer, core.lineage(layer), label="")
        assert not await unions.release(layer.id)
    assert await unions.release(layer.id)
    assert mounts_below(core.home) == []


async def test_mounts_are_found_after_a_restart_where_the_home_is_reached_by_a_link(core: Core, tmp_path: Path) -> None:
    core.add("base", None, {"a": "base"})
    union = await core.mount(core.add("c", "base", container=True))
    (tmp_path / "link").symlink_to(core.home)
    again = dataclasses.replace(core, home=tmp_path / "link")
    [layer] = await again.unions.adopt()
    assert await again.unions.release(layer.id)
    assert mounts_below(core.home) == []
    assert not union.exists()


async def test_a_mount_whose_layer_is_gone_is_taken_off_at_the_next_start(core: Core) -> None:
    core.add("base")
    layer = core.add("c", "base", container=True)
    await core.mount(layer)
    layer.directory.rename(layer.directory.with_name("-no-id"))
    again = dataclasses.replace(core)
    assert await again.unions.adopt() == {}
    assert mounts_below(core.home) == []


async def test_a_damaged_record_of_a_mounted_layer_keeps_nobody_from_working(core: Core) -> None:
    core.add("base", None, {"a": "base"})
    layer = core.add("c", "base", container=True)
    other = core.add("d", "base", container=True)
    union = await core.mount(layer)
    await core.mount(other)
    await core.mount(layer)
    (layer.directory / "record.json").write_text("{")
    again = dataclasses.replace(core)
    assert list(await again.unions.adopt()) == [other]
    assert contents(union) == {"a": "base"}
    # Whoever holds it gives it back as any other.
    await again.unions.begin()
    await again.unions.acquire(layer, core.lineage(layer), label="")
    assert not await again.unions.release(layer.id)
    assert contents(union) == {"a": "base"}
    assert await again.unions.release(layer.id)
    assert mounts_below(core.home) == [str(other.merged)]


async def test_the_label_of_the_first_mount_reaches_the_kernel(core: Core) -> None:
    core.add("base")
    layer = core.add("c", "base", container=True)
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    # A kernel without SELinux refuses the option; the message shows it as it went in.
    if Path("/sys/fs/selinux").is_dir():
        await core.mount(layer, label=label)
    else:
        with pytest.raises(MountError, match=f'context="{label}"'):
            await core.mount(layer, label=label)


async def test_a_union_that_cannot_be_counted_is_not_left_mounted(core: Core) -> None:
    core.add("base", None, {"a": "base"})
    layer = core.add("c", "base", container=True)
    # As on a disk that got full, on which a process with other rights than this one's cannot write.
    (layer.directory / "held").mkdir()
    with pytest.raises(IsADirectoryError):
        await core.mount(layer)
    assert mounts_below(core.home) == []
    assert layer.id not in core.unions
    (layer.directory / "held").rmdir()
    assert contents(await core.mount(layer)) == {"a": "base"}
    assert await core.unions.release(layer.id)
    assert mounts_below(core.home) == []
