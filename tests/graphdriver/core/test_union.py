"""Unions as the kernel mounts them: order, deletions below their layer, many layers, and who holds them.

Not covered, since no client of CVMFS is here: a union of repository directories alone fails every look-up with
ENAMETOOLONG, which the empty directory below read-only unions cures.
"""

import dataclasses
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.graphdriver.core.layers import LayerId
from services.graphdriver.errors import MountError, RepositoryError
from tests.graphdriver.core.conftest import Core
from tests.support.mounts import mount, mounts_below, unmount_all_below
from tests.support.repositories import Repository


@pytest.fixture(autouse=True)
async def _unmount(core: Core, mounting: None) -> AsyncIterator[None]:  # noqa: ARG001 - ends after this
    yield
    for layer_id in core.unions.mounted():
        await core.unions.discard(core.layers.find(layer_id))


def _contents(union: Path) -> dict[str, str]:
    return {str(path.relative_to(union)): path.read_text() for path in sorted(union.rglob("*")) if path.is_file()}


def _whiteout(place: Path) -> None:
    os.mknod(place, stat.S_IFCHR, os.makedev(0, 0))


async def test_upper_layers_hide_lower_ones(core: Core) -> None:
    core.add("base", None, {"a": "base", "b": "base", "c": "base"})
    core.add("middle", "base", {"b": "middle", "c": "middle"})
    core.add("c-init", "middle", {"hosts": "init"}, container=True)
    union = await core.mount(core.add("c", "c-init", {"c": "container"}, container=True))
    assert _contents(union) == {"a": "base", "b": "middle", "c": "container", "hosts": "init"}


async def test_what_is_written_ends_up_in_the_layers_own_directory(core: Core) -> None:
    base = core.add("base", None, {"a": "base", "gone": "base"})
    layer = core.add("c", "base", container=True)
    union = await core.mount(layer)
    (union / "a").write_text("changed")
    (union / "gone").unlink()
    assert (layer.diff / "a").read_text() == "changed"
    assert stat.S_ISCHR((layer.diff / "gone").lstat().st_mode)
    assert _contents(base.diff) == {"a": "base", "gone": "base"}


async def test_a_container_on_nothing_is_mounted_too(core: Core) -> None:
    union = await core.mount(core.add("c", None, {"a": "container"}, container=True))
    assert _contents(union) == {"a": "container"}


async def test_the_order_of_all_kinds_of_layers(core: Core, repository: Repository) -> None:
    """Container, init, local layers, files beside thin.json, the descriptor's layers last listed first."""
    names = ["first", "second", "beside", "local-1", "local-2", "init", "own"]
    files = {name: {f"from-{upper}": name for upper in names[: index + 1]} for index, name in enumerate(names)}
    urls = [repository.publish(name, files[name]) for name in ("first", "second")]
    core.add("dropped", None, {"from-first": "dropped", "dropped": "dropped"})
    core.add_thin("thin", "dropped", urls, files=files["beside"])
    core.add("local-1", "thin", files=files["local-1"])
    core.add("local-2", "local-1", files=files["local-2"])
    core.add("own-init", "local-2", container=True, files=files["init"])
    union = await core.mount(core.add("own", "own-init", container=True, files=files["own"]))
    # File from-X is in X and every layer above it, so the top one shows.
    assert _contents(union) == {f"from-{name}": "own" for name in names}
    # One layer less at the top each time.
    await core.unions.discard(core.layers.find(LayerId("own")))
    for file in (core.layers.find(LayerId("own"))).diff.iterdir():
        file.unlink()
    for upper, layer in (("init", "own-init"), ("local-2", "local-2"), ("local-1", "local-1"), ("beside", "thin")):
        own = core.layers.find(LayerId("own"))
        union = await core.mount(own)
        shown = set(_contents(union).values())
        assert shown == {upper}
        await core.unions.discard(own)
        for file in core.layers.find(LayerId(layer)).diff.iterdir():
            if file.name != "thin.json":
                file.unlink()
    union = await core.mount(core.layers.find(LayerId("own")))
    assert _contents(union) == {"from-first": "second", "from-second": "second"}


@pytest.mark.parametrize("files", [{}, {"beside": "x"}])
async def test_the_descriptor_is_not_visible(core: Core, repository: Repository, files: dict[str, str]) -> None:
    core.add_thin("thin", None, [repository.publish("one", {"a": "one"})], files=files)
    union = await core.mount(core.add("c", "thin", container=True))
    assert _contents(union) == {"a": "one"} | files
    # It can be made anew.
    (union / "thin.json").write_text("mine")
    assert _contents(union)["thin.json"] == "mine"


async def test_layers_of_two_repositories(core: Core, repository: Repository, other_repository: Repository) -> None:
    urls = [
        repository.publish("one", {"a": "one", "b": "one"}),
        other_repository.publish("two", {"b": "two"}),
        repository.publish("three", {"c": "three"}),
    ]
    core.add_thin("thin", None, urls)
    union = await core.mount(core.add("c", "thin", container=True))
    assert _contents(union) == {"a": "one", "b": "two", "c": "three"}


async def test_masks_delete_from_the_layers_below_theirs_only(core: Core, repository: Repository) -> None:
    urls = [
        repository.publish("one", {"f": "one", "d/old": "one", "d/both": "one", "o/old": "one", "o/s/old": "one"}),
        repository.publish(
            "two",
            {"d/both": "two", "o/new": "two"},
            whiteouts=[b"f", b"d/old"],
            opaque=[b"o"],
        ),
        repository.publish("three", {"f": "three", "o/s/third": "three"}),
    ]
    core.add_thin("thin-2", None, urls[:2])
    union = await core.mount(core.add("c2", "thin-2", container=True))
    assert _contents(union) == {"d/both": "two", "o/new": "two"}
    # What a later layer brings back is there, and the deletions still hold.
    core.add_thin("thin-3", None, urls)
    union = await core.mount(core.add("c3", "thin-3", container=True))
    assert _contents(union) == {"d/both": "two", "o/new": "two", "f": "three", "o/s/third": "three"}


async def test_a_masked_layers_own_attributes_show(core: Core, repository: Repository) -> None:
    repository.publish("one", {"d/old": "one", "d/kept": "one", "o/old": "one"})
    repository.publish("two", {"d/x": "two"}, whiteouts=[b"d/old"], opaque=[b"o"])
    for path, mode, time in (("d", 0o1777, 1_000_000_001), ("o", 0o700, 1_000_000_002)):
        place = repository.tree("two") / path
        os.chown(place, 12, 34)
        place.chmod(mode)
        os.utime(place, ns=(time, time))
    core.add_thin("thin", None, [repository.url("one"), repository.url("two")])
    union = await core.mount(core.add("c", "thin", container=True))
    assert _contents(union) == {"d/kept": "one", "d/x": "two"}
    found = {name: os.stat(union / name) for name in ("d", "o")}
    assert {
        name: (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns)
        for name, status in found.items()
    } == {"d": (0o1777, 12, 34, 1_000_000_001), "o": (0o700, 12, 34, 1_000_000_002)}


async def test_a_directory_that_became_a_file_and_back(core: Core, repository: Repository) -> None:
    urls = [
        repository.publish("one", {"x/old": "one"}),
        repository.publish("two", {"x": "a file now"}, whiteouts=[]),
        repository.publish("three", {"x/new": "three"}, opaque=[b"x"]),
    ]
    core.add_thin("thin", None, urls[:2])
    union = await core.mount(core.add("c", "thin", container=True))
    assert _contents(union) == {"x": "a file now"}
    core.add_thin("again", None, urls)
    union = await core.mount(core.add("d", "again", container=True))
    assert _contents(union) == {"x/new": "three"}


async def test_a_layer_that_is_listed_twice_counts_where_it_is_listed_last(core: Core, repository: Repository) -> None:
    one = repository.publish("one", {"a": "one"}, whiteouts=[b"b"])
    two = repository.publish("two", {"a": "two", "b": "two"})
    core.add_thin("thin", None, [one, two, one])
    union = await core.mount(core.add("c", "thin", container=True))
    assert _contents(union) == {"a": "one"}


async def test_more_than_a_hundred_layers(core: Core, repository: Repository) -> None:
    """Local ones and published ones, each of these with a mask: 300 lower directories in the page of options."""
    urls = [repository.publish(f"p{number}", {f"p{number}": ""}, whiteouts=[b"gone"]) for number in range(75)]
    parent = core.add_thin("thin", None, urls).id
    for number in range(149):
        parent = core.add(f"{number:064x}", parent, {f"l{number}": "", "gone": ""}).id
    _whiteout(core.add("f" * 64, parent).diff / "gone")
    union = await core.mount(core.add("c", "f" * 64, container=True))
    assert len(_contents(union)) == 75 + 149


async def test_more_layers_than_fit_are_refused(core: Core) -> None:
    parent = None
    for number in range(330):
        parent = core.add(f"{number:064x}", parent).id
    with pytest.raises(MountError, match="330 layers are more than one overlay mount takes"):
        await core.mount(core.add("c", parent, container=True))
    assert core.unions.mounted() == []


async def test_a_view_is_read_only_and_gone_afterwards(core: Core, repository: Repository) -> None:
    core.add_thin("thin", None, [repository.publish("one", {"a": "one"}, whiteouts=[b"x"])])
    layer = core.add("c", "thin", {"a": "container"}, container=True)
    async with core.builder.view(core.lineage(layer), holder="viewer") as view:
        assert _contents(view) == {"a": "one"}
        with pytest.raises(OSError, match="Read-only file system"):
            (view / "a").write_text("x")
    assert mounts_below(core.home) == []
    assert os.listdir(core.home / "views") == []


async def test_a_view_of_a_single_directory(core: Core) -> None:
    # The kernel wants two lower directories where there is no upper one.
    core.add("base", None, {"a": "base"})
    layer = core.add("c", "base", container=True)
    async with core.builder.view(core.lineage(layer), holder="viewer") as view:
        assert _contents(view) == {"a": "base"}


async def test_a_view_that_a_kill_left_is_unmounted_at_the_next_start(core: Core) -> None:
    left = core.home / "views/tmpabc"
    left.mkdir()
    mount("-t", "tmpfs", "tmpfs", left)
    dataclasses.replace(core)
    assert mounts_below(core.home) == []
    assert os.listdir(core.home / "views") == []


async def test_a_failed_mount_leaves_no_mount_point_counted(core: Core) -> None:
    core.add_thin("thin", None, ["cvmfs://secret.example.org/" + "1e" * 32])
    with pytest.raises(RepositoryError, match=r"secret\.example\.org is not among those allowed"):
        await core.mount(core.add("c", "thin", container=True))
    assert LayerId("c") not in core.unions


# Who holds a union


async def test_gets_and_puts_in_pairs(core: Core) -> None:
    core.add("base", None, {"a": "base"})
    layer = core.add("c", "base", container=True)
    first = await core.mount(layer)
    assert await core.mount(layer) == first
    assert mounts_below(core.home) == [str(first)]
    assert not await core.unions.release(layer)
    assert _contents(first) == {"a": "base"}
    assert await core.unions.release(layer)
    assert mounts_below(core.home) == []
    assert not first.exists()


async def test_a_put_at_zero_does_nothing(core: Core) -> None:
    core.add("base", None, {"a": "base"})
    layer = core.add("c", "base", container=True)
    for _ in range(2):
        assert await core.unions.release(layer)
    union = await core.mount(layer)
    assert _contents(union) == {"a": "base"}
    assert await core.unions.release(layer)
    assert mounts_below(core.home) == []


async def test_discarding_unmounts_whatever_the_count_says(core: Core) -> None:
    core.add("base")
    layer = core.add("c", "base", container=True)
    for _ in range(3):
        union = await core.mount(layer)
    with (union / "busy").open("w"):
        await core.unions.discard(layer)
    assert mounts_below(core.home) == []
    assert layer.id not in core.unions
    await core.mount(layer)
    assert await core.unions.release(layer)


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
    assert not await again.unions.release(layer)
    assert _contents(union) == {"a": "one"}
    assert mounts_below(core.home) == [str(union)]
    assert await again.unions.release(layer)
    assert mounts_below(core.home) == []


async def test_a_union_that_is_hidden_after_a_restart_is_mounted_a_second_time(core: Core) -> None:
    """As a managed plugin finds it whose directory the engine has mounted anew: containers alone have the first one."""
    core.add("base", None, {"a": "base"})
    layer = core.add("c", "base", container=True)
    idle = core.add("idle", "base", container=True)
    union = await core.mount(layer)
    await core.mount(idle)
    await core.unions.release(idle)
    idle.merged.mkdir()
    container = os.open(union, os.O_PATH)
    unmount_all_below(core.home)
    again = dataclasses.replace(core)
    assert await again.unions.adopt() == {layer: None}
    await again.unions.begin()
    # What the engine does for a container that it finds running; the mount point stays, where `docker exec` starts.
    assert await again.mount(layer) == union
    assert not await again.unions.release(layer)
    assert _contents(union) == {"a": "base"}
    assert mounts_below(core.home) == [str(union)]
    os.close(container)
    assert await again.unions.release(layer)
    assert mounts_below(core.home) == []


async def test_a_killed_process_leaves_the_count_to_the_next(core: Core) -> None:
    """An engine that was committing when its driver died gives back what it had taken for the commit."""
    core.add("base", None, {"a": "base"})
    layer = core.add("c", "base", container=True)
    union = await core.mount(layer)
    for _ in range(2):
        await core.mount(layer)
    await core.unions.release(layer)
    again = dataclasses.replace(core)
    await again.unions.adopt()
    assert not await again.unions.release(layer)
    assert _contents(union) == {"a": "base"}
    assert await again.unions.release(layer)
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
    assert await again.unions.release(layer)


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
        assert not await unions.release(layer)
    assert await unions.release(layer)
    assert mounts_below(core.home) == []


async def test_mounts_are_found_after_a_restart_where_the_home_is_reached_by_a_link(core: Core, tmp_path: Path) -> None:
    core.add("base", None, {"a": "base"})
    union = await core.mount(core.add("c", "base", container=True))
    (tmp_path / "link").symlink_to(core.home)
    again = dataclasses.replace(core, home=tmp_path / "link")
    [layer] = await again.unions.adopt()
    assert await again.unions.release(layer)
    assert mounts_below(core.home) == []
    assert not union.exists()


async def test_a_mount_whose_layer_is_gone_is_taken_off_at_the_next_start(core: Core) -> None:
    core.add("base")
    layer = core.add("c", "base", container=True)
    await core.mount(layer)
    (layer.directory / "record.json").unlink()
    again = dataclasses.replace(core)
    assert await again.unions.adopt() == {}
    assert mounts_below(core.home) == []


async def test_a_damaged_record_of_a_mounted_layer_keeps_nobody_from_working(core: Core) -> None:
    core.add("base", None, {"a": "base"})
    layer = core.add("c", "base", container=True)
    other = core.add("d", "base", container=True)
    union = await core.mount(layer)
    await core.mount(other)
    record = layer.directory / "record.json"
    whole = record.read_text()
    record.write_text("{")
    again = dataclasses.replace(core)
    assert list(await again.unions.adopt()) == [other]
    assert _contents(union) == {"a": "base"}
    record.write_text(whole)


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
