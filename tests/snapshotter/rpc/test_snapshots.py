"""Every call of the snapshots service, with containerd's own keys and labels."""

import asyncio
import os
import time
from collections.abc import Awaitable
from pathlib import Path

import pytest
from grpclib import GRPCError, Status

from services.snapshotter.proto.snapshots_pb2 import Kind
from tests.snapshotter.conftest import Snapshotters
from tests.support.containerd import ContainerdClient, lowers, mounted, option
from tests.support.deep import deepen

CHAIN = "default/7/sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
EXTRACT = "default/6/extract-677444065-mE2T sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
REF = "containerd.io/snapshot.ref"


async def _refused(call: Awaitable[object], status: Status, text: str) -> None:
    with pytest.raises(GRPCError) as error:
        await call
    assert error.value.status is status
    assert text in str(error.value.message)


async def test_a_layer_is_unpacked_and_stands_below_others(client: ContainerdClient, state: Path) -> None:
    before = time.time()
    base = await client.prepare(EXTRACT)
    assert (base.type, list(base.options)) == ("bind", ["rw", "rbind"])
    info = await client.stat(EXTRACT)
    assert (info.name, info.parent, info.kind, dict(info.labels)) == (EXTRACT, "", Kind.ACTIVE, {})
    assert before - 1 < info.created_at.ToSeconds() <= time.time()
    Path(base.source, "file").write_text("base")
    await client.commit(CHAIN, EXTRACT)
    info = await client.stat(CHAIN)
    assert (info.name, info.parent, info.kind) == (CHAIN, "", Kind.COMMITTED)
    top = await client.prepare("default/8/top", CHAIN)
    assert (top.type, top.source) == ("overlay", "overlay")
    assert [text.partition("=")[0] for text in top.options] == ["workdir", "upperdir", "lowerdir", "index"]
    assert lowers(top) == [Path(base.source)]
    assert (await client.stat("default/8/top")).parent == CHAIN
    assert await client.mounts("default/8/top") == top
    with mounted(top) as root:
        assert (root / "file").read_text() == "base"
        (root / "file").write_text("top")
    assert Path(option(top, "upperdir"), "file").read_text() == "top"
    assert Path(base.source, "file").read_text() == "base"
    assert Path(base.source).is_relative_to(state)


async def test_views_are_read_only(client: ContainerdClient) -> None:
    nothing = await client.view("moby/1/nothing")
    assert (nothing.type, list(nothing.options)) == ("bind", ["ro", "rbind"])
    await client.layer("one", "", {"a": "1"})
    await client.layer("two", "one", {"b": "2"})
    one, two = await client.view("moby/2/one-view", "one"), await client.view("moby/2/two-view", "two")
    assert (one.type, list(one.options)) == ("bind", ["ro", "rbind"])
    assert two.type == "overlay"
    assert not [text for text in two.options if text.startswith(("upperdir", "workdir"))]
    # BuildKit tells by the text that one is the other with a layer more.
    assert option(two, "lowerdir").split(":")[1:] == [one.source]
    for view in (one, two):
        with mounted(view) as root:
            assert (root / "a").read_text() == "1"
            with pytest.raises(OSError, match="Read-only"):
                (root / "a").touch()
    assert (await client.stat("moby/2/two-view")).kind == Kind.VIEW
    assert await client.mounts("moby/2/two-view") == two


async def test_the_root_is_that_of_the_image(client: ContainerdClient) -> None:
    base = await client.prepare("k/1/base")
    os.chown(base.source, 5, 6)
    Path(base.source).chmod(0o2751)
    await client.commit("base", "k/1/base")
    for above in (await client.prepare("k/2/container", "base"), await client.view("k/3/view", "base")):
        with mounted(above) as root:
            status = root.stat()
            assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o2751, 5, 6)


async def test_what_is_refused(client: ContainerdClient) -> None:
    await client.layer("base", "", {})
    await client.prepare("n/1/active", "base")
    await client.view("n/1/view", "base")
    for key in ("n/1/active", "n/1/view", "base"):
        await _refused(client.prepare(key), Status.ALREADY_EXISTS, f"snapshot {key} exists")
        await _refused(client.view(key, "base"), Status.ALREADY_EXISTS, key)
        await _refused(client.commit(key, "n/1/active"), Status.ALREADY_EXISTS, key)
    for parent in ("n/1/active", "n/1/view"):
        await _refused(client.prepare("n/2/new", parent), Status.INVALID_ARGUMENT, f"{parent} is not a committed")
    await _refused(client.prepare("n/2/new", "none"), Status.NOT_FOUND, "snapshot none does not exist")
    await _refused(client.prepare("", "base"), Status.INVALID_ARGUMENT, "key")
    await _refused(client.commit("base", "none"), Status.ALREADY_EXISTS, "snapshot base exists")
    await _refused(client.commit("", "n/1/active"), Status.INVALID_ARGUMENT, "name")
    calls = (client.stat, client.mounts, client.usage, client.remove, lambda key: client.commit("new", key))
    for call in (*calls, lambda key: client.update(key, {})):
        await _refused(call("none"), Status.NOT_FOUND, "snapshot none does not exist")
    await _refused(client.remove("base"), Status.FAILED_PRECONDITION, "others stand on it")
    await _refused(client.mounts("base"), Status.FAILED_PRECONDITION, "is committed")
    for key in ("n/1/view", "base"):
        await _refused(client.commit("new", key), Status.FAILED_PRECONDITION, f"snapshot {key} is not active")
    await _refused(client.update("base", {}, "parent"), Status.INVALID_ARGUMENT, "parent of snapshot base")
    await _refused(client.list('kind=="'), Status.INVALID_ARGUMENT, "cannot be read")
    assert {info.name for info in await client.list()} == {"base", "n/1/active", "n/1/view"}


async def test_labels(client: ContainerdClient) -> None:
    await client.prepare("n/1/key", labels={REF: "x", "containerd.io/snapshot/a": "1"})
    assert dict((await client.stat("n/1/key")).labels) == {REF: "x", "containerd.io/snapshot/a": "1"}
    # What is named and not there goes.
    info = await client.update(
        "n/1/key", {"containerd.io/snapshot/b": "2"}, f"labels.{REF}", "labels.containerd.io/snapshot/b"
    )
    assert dict(info.labels) == {"containerd.io/snapshot/a": "1", "containerd.io/snapshot/b": "2"}
    assert info.updated_at.ToNanoseconds() > info.created_at.ToNanoseconds()
    assert await client.stat("n/1/key") == info
    assert dict((await client.update("n/1/key", {"c": "3"}, "labels")).labels) == {"c": "3"}
    assert dict((await client.update("n/1/key", {"d": "4", "e": ""})).labels) == {"d": "4"}
    # Those of the active one are not inherited.
    await client.commit("name", "n/1/key", {"f": "5"})
    assert dict((await client.stat("name")).labels) == {"f": "5"}


async def test_lists(client: ContainerdClient) -> None:
    await client.layer("base", "", {})
    await client.update("base", {REF: 'the "base"'})
    for number in range(110):
        await client.view(f"n/{number}/view", "base")
    assert len(await client.list()) == 111
    for filters, count in (
        (["kind==committed"], 1),
        (["kind==view"], 110),
        ([f'labels."{REF}"=="the \\"base\\"",parent==""'], 1),
        ([f'labels."{REF}"=="the \\"base\\"",parent=="base"'], 0),
        ([f'labels."{REF}"'], 1),
        ([f"labels.{REF}"], 1),
        ([f'labels."{REF}"!=other'], 111),
        (['parent==base,name~="^n/1[0-9]?/"'], 11),
        (["name==base", "name==n/7/view"], 2),
        (["nothing==base"], 0),
    ):
        assert len(await client.list(*filters)) == count, filters


async def test_usage_is_that_of_its_own_files(client: ContainerdClient, state: Path) -> None:
    await client.layer("base", "", {"large": bytes(1 << 20), "dir/small": b"1"})
    base = await client.usage("base")
    assert 1 << 20 <= base.size < (1 << 20) + (64 << 10)
    assert base.inodes == 4
    top = await client.prepare("n/1/top", "base")
    upper = Path(option(top, "upperdir"))
    assert (await client.usage("n/1/top")).inodes == 1
    (upper / "one").write_bytes(bytes(4096))
    (upper / "two").hardlink_to(upper / "one")
    assert (await client.usage("n/1/top")).inodes == 2
    await client.view("n/1/view", "base")
    assert (await client.usage("n/1/view")).size == 0
    # That of a committed one is not measured again.
    (state / "l/1/large").unlink()
    assert await client.usage("base") == base


async def test_a_snapshot_deeper_than_any_path_is_measured_and_removed(client: ContainerdClient, state: Path) -> None:
    upper = Path((await client.prepare("n/1/deep", "")).source)
    deepen(upper, 2_500)
    assert (await client.usage("n/1/deep")).inodes == 2_502
    await client.remove("n/1/deep")
    await client.cleanup()
    assert list((state / "trash").iterdir()) == []


async def test_removed_files_go_with_the_clean_up(client: ContainerdClient, state: Path) -> None:
    await client.layer("base", "", {"file": "x"})
    tree = Path((await client.view("n/1/view", "base")).source)
    await client.remove("n/1/view")
    await client.remove("base")
    assert not tree.exists()
    assert list(state.glob("trash/*/file"))
    await client.cleanup()
    assert [path for name in ("trash", "work", "l") for path in (state / name).iterdir()] == []
    # A name can be used again, a number never is.
    await client.layer("base", "", {"file": "y"})
    assert Path((await client.view("n/2/view", "base")).source) != tree


async def test_everything_is_there_after_a_restart(snapshotters: Snapshotters, state: Path) -> None:
    async with snapshotters.running() as client:
        await client.layer("base", "", {"file": "x"})
        container = await client.prepare("n/1/container", "base", {REF: "x"})
        infos = await client.list()
    (state / "l/zz").mkdir()
    (state / "work/zz").mkdir()
    async with snapshotters.running() as client:
        assert await client.list() == infos
        assert await client.mounts("n/1/container") == container
        # What has no record is what a kill left.
        assert not (state / "l/zz").exists()
        assert not (state / "work/zz").exists()
        await client.cleanup()
        assert list((state / "trash").iterdir()) == []


async def test_many_at_once(client: ContainerdClient) -> None:
    await client.layer("base", "", {})
    mounts = await asyncio.gather(*(client.prepare(f"n/{number}/key", "base") for number in range(50)))
    assert len({option(one, "upperdir") for one in mounts}) == 50
    outcomes = await asyncio.gather(*(client.prepare("n/x/same", "base") for _ in range(5)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, GRPCError)]
    assert [error.status for error in refused] == [Status.ALREADY_EXISTS] * 4
    await asyncio.gather(*(client.remove(f"n/{number}/key") for number in range(50)))
    assert len(await client.list()) == 2
