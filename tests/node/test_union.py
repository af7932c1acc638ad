"""Unions as the kernel mounts them: order, deletions below their layer, many layers.

Not covered, since no client of CVMFS is here: a union of repository directories alone fails every look-up with
ENAMETOOLONG, which the empty directory below read-only unions cures.
"""

import dataclasses
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.node.errors import MountError, RepositoryError
from services.node.layers import LayerId
from tests.node.conftest import Core
from tests.support.mounts import mount, mounts_below
from tests.support.repositories import Repository


@pytest.fixture(autouse=True)
async def _unmount(core: Core, mounting: None) -> AsyncIterator[None]:  # noqa: ARG001 - ends after this
    yield
    for layer_id in core.unions.mounted():
        await core.unions.discard(layer_id)


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
    await core.unions.discard(LayerId("own"))
    for file in (core.layers.find(LayerId("own"))).diff.iterdir():
        file.unlink()
    for upper, layer in (("init", "own-init"), ("local-2", "local-2"), ("local-1", "local-1"), ("beside", "thin")):
        own = core.layers.find(LayerId("own"))
        union = await core.mount(own)
        shown = set(_contents(union).values())
        assert shown == {upper}
        await core.unions.discard(own.id)
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


async def test_as_many_layers_as_the_kernel_stacks(core: Core) -> None:
    """They do not fit into the page of options by their own names."""
    parent = None
    for number in range(500):
        parent = core.add(f"{number:064x}", parent, {"top": str(number), f"l{number}": ""}).id
    layer = core.add("c", parent, container=True)
    union = await core.mount(layer)
    assert len(_contents(union)) == 501
    assert (union / "top").read_text() == "499"
    (union / "l0").unlink()
    assert os.listdir(layer.diff) == ["l0"]
    # What its numbers stand for cannot be seen after a restart.
    assert await dataclasses.replace(core).unions.adopt() == {layer: None}
    too_many = core.add("more", parent)
    with pytest.raises(MountError, match=r"501 layers.* are more than one overlay mount takes"):
        await core.mount(core.add("d", too_many.id, container=True))
    assert core.unions.mounted() == [layer.id]
    assert os.listdir(core.layers.scratch) == []


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
