"""What containerd demands of every snapshotter (its `core/snapshots/testsuite`), over the socket and with real mounts.

Whatever is done to a snapshot through its mount, a plain directory to which the same is done looks the same.
"""

import dataclasses
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import pytest
from grpclib import GRPCError, Status

from harness.trees import Tree, differences, read_directory
from services.snapshotter.proto.snapshots_pb2 import Info, Kind
from tests.snapshotter.conftest import Snapshotters
from tests.support.containerd import ContainerdClient, mounted

Step = Callable[[Path], None]
ROOT_LABEL = {"containerd.io/gc.root": "2026-01-02T03:04:05Z"}
LAYERS = 128


def written(path: str, content: str = "", mode: int = 0o644) -> Step:
    def step(root: Path) -> None:
        (root / path).write_text(content)
        (root / path).chmod(mode)

    return step


def made(path: str, mode: int = 0o700) -> Step:
    def step(root: Path) -> None:
        (root / path).mkdir()
        (root / path).chmod(mode)

    return step


def removed(path: str) -> Step:
    def step(root: Path) -> None:
        place = root / path
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink()

    return step


def owned(path: str, owner: int) -> Step:
    return lambda root: os.chown(root / path, owner, owner)


def renamed(path: str, new: str) -> Step:
    def step(root: Path) -> None:
        (root / path).rename(root / new)

    return step


def linked(path: str, new: str) -> Step:
    return lambda root: (root / new).hardlink_to(root / path)


# Layers of images, each of steps; the numbers are those of the reports that containerd took the cases from.
IMAGES: Mapping[str, Sequence[Sequence[Step]]] = {
    "the basic workflow": (
        (written("foo", "foo\n", 0o777), made("a", 0o755), made("a/b", 0o755), made("a/b/c", 0o755)),
        (written("bar", "bar\n", 0o777), written("foo", "bar\n", 0o777), removed("a/b")),
    ),
    "files are deleted": (
        (written("foo", "foo\n", 0o777), written("foobar", "foobar\n", 0o777)),
        (removed("foobar"),),
        (),
    ),
    "files are moved": (
        (made("dir1"), written("dir1/f1", "Hello"), made("dir2"), written("dir2/f2", "...")),
        (
            *(made("dir3"), written("dir3/f1", "Hello"), removed("dir1")),
            *(linked("dir2/f2", "dir3/f2"), removed("dir2/f2")),
        ),
    ),
    "files are replaced, moby 21555": (
        (made("etc"), written("etc/hosts", "mydomain 10.0.0.1"), written("etc/profile", "PATH=/usr/bin")),
        (
            *(written("etc/hosts", "mydomain 10.0.0.2"), written("etc/profile", "PATH=/usr/bin", 0o666)),
            *(made("root"), written("root/.bashrc", "PATH=/usr/sbin:/usr/bin")),
        ),
    ),
    "a directory is made anew, moby 25244": (
        (made("lib"), written("lib/hidden")),
        (removed("lib"), made("lib"), written("lib/not-hidden")),
        (written("lib/newfile"),),
    ),
    "owners change, moby 20240": (
        (made("opt"), made("opt/a"), made("opt/a/b"), written("opt/a/b/file.txt", "hello")),
        (owned("opt", 1), owned("opt/a", 1), owned("opt/a/b", 1), owned("opt/a/b/file.txt", 1)),
    ),
    "files are renamed, moby 25409": (
        (made("somefiles"), written("somefiles/f1", "was here first!"), written("somefiles/f2", "nothing interesting")),
        (
            *(written("somefiles/new", "new content 1"), renamed("somefiles/new", "somefiles/f1")),
            renamed("somefiles/f2", "somefiles/f3"),
        ),
    ),
    "attributes of directories, moby 27298": (
        (
            *(made("dir1"), made("dir2"), made("dir3"), made("dir4"), written("dir4/f1", "...")),
            *(made("dir5"), written("dir5/f1", "..."), owned("dir1", 1), owned("dir2", 1), owned("dir3", 1)),
            *(owned("dir5", 1), owned("dir5/f1", 1)),
        ),
        (owned("dir2", 0), removed("dir3"), owned("dir4", 1), owned("dir4/f1", 1)),
        (made("dir3"), owned("dir3", 1), removed("dir5"), made("dir5"), owned("dir5", 1)),
    ),
}


def _many_layers() -> Sequence[Sequence[Step]]:
    first = (
        written("bottom"),
        written("overwriteme"),
        made("addhere", 0o755),
        made("onlyme"),
        written("onlyme/bottom"),
    )
    others = [
        (
            *(written("overwriteme", f"{number} was here"), written(f"addhere/file-{number}", "same")),
            *(removed("onlyme"), made("onlyme"), written(f"onlyme/file-{number}", "only me")),
        )
        for number in range(1, LAYERS)
    ]
    return (first, *others)


def _read(root: Path) -> Tree:
    """Read a tree without times: the two are made one after the other."""
    return {path: dataclasses.replace(entry, mtime=None) for path, entry in read_directory(root).items()}


@pytest.fixture(params=[None, "moby"], ids=["without a namespace", "with a namespace"])
async def client(snapshotters: Snapshotters, request: pytest.FixtureRequest) -> AsyncIterator[ContainerdClient]:
    """Both of containerd's ways to call."""
    async with (
        snapshotters.running(),
        ContainerdClient.connected(snapshotters.settings.socket, namespace=request.param) as client,
    ):
        yield client


async def _refused(call: Awaitable[object], status: Status) -> None:
    with pytest.raises(GRPCError) as error:
        await call
    assert error.value.status is status


async def _check(client: ContainerdClient, plain: Path, layers: Sequence[Sequence[Step]]) -> None:
    plain.mkdir(mode=0o755)
    parent = ""
    for number, steps in enumerate(layers):
        key = f"testsuite/{number}/{plain}-preparing-{number}"
        with mounted(await client.prepare(key, parent, ROOT_LABEL)) as root:
            for step in steps:
                step(root)
        for step in steps:
            step(plain)
        parent = f"testsuite/{number}/{plain}-committed-{number}"
        await client.commit(parent, key, ROOT_LABEL)
        await _refused(client.stat(key), Status.NOT_FOUND)
        assert (await client.stat(parent)).kind == Kind.COMMITTED
    with mounted(await client.view("testsuite/0/view", parent)) as root:
        assert differences(_read(root), _read(plain), names=("view", "plain")) == []
    with mounted(await client.prepare("testsuite/0/top", parent)) as root:
        assert differences(_read(root), _read(plain), names=("snapshot", "plain")) == []


@pytest.mark.parametrize("client", ["moby"], indirect=True)
@pytest.mark.parametrize("image", IMAGES)
async def test_layers_are_what_has_been_done_to_them(client: ContainerdClient, tmp_path: Path, image: str) -> None:
    await _check(client, tmp_path / "plain", IMAGES[image])


@pytest.mark.parametrize("client", ["moby"], indirect=True)
async def test_many_layers(client: ContainerdClient, tmp_path: Path) -> None:
    await _check(client, tmp_path / "plain", _many_layers())


async def test_the_root_of_nothing(client: ContainerdClient) -> None:
    with mounted(await client.prepare("testsuite/1/preparing")) as root:
        assert root.stat().st_mode & 0o7777 == 0o755


async def test_parents_are_those_directly_below(client: ContainerdClient) -> None:
    await client.layer("snap-a", "", {"foo": "foo\n"})
    await client.layer("snap-b", "snap-a", {"foo": "foo bar\n"})
    assert (await client.stat("snap-a")).parent == ""
    assert (await client.stat("snap-b")).parent == "snap-a"


async def _base(client: ContainerdClient) -> dict[str, tuple[int, str]]:
    """Make one snapshot of each kind; return their kinds and parents."""
    await client.prepare("c1-a")
    await client.commit("c1", "c1-a")
    await client.prepare("c2-a", "c1")
    await client.commit("c2", "c2-a")
    await client.prepare("a1", "c2")
    await client.prepare("a2")
    await client.view("v1", "c2")
    await client.view("v2")
    committed = {"c1": (int(Kind.COMMITTED), ""), "c2": (int(Kind.COMMITTED), "c1")}
    active = {"a1": (int(Kind.ACTIVE), "c2"), "a2": (int(Kind.ACTIVE), "")}
    return committed | active | {"v1": (int(Kind.VIEW), "c2"), "v2": (int(Kind.VIEW), "")}


async def test_updates(client: ContainerdClient) -> None:
    before = time.time_ns()
    expected = await _base(client)
    after = time.time_ns()

    def described(info: Info) -> tuple[int, str]:
        assert before <= info.created_at.ToNanoseconds() <= after
        return info.kind, info.parent

    for name, kind_and_parent in expected.items():
        info = await client.stat(name)
        assert described(info) == kind_and_parent
        assert info.created_at == info.updated_at
        labels = {"l1": "v1", "l2": "v2", "l3": "v3", **ROOT_LABEL}
        started = time.time_ns()
        info = await client.update(name, labels)
        assert (described(info), dict(info.labels)) == (kind_and_parent, labels)
        assert started <= info.updated_at.ToNanoseconds() <= time.time_ns()
        info = await client.update(name, {"l1": "updated", "l4": "v4"}, "labels.l1", "labels.l2")
        assert dict(info.labels) == {"l1": "updated", "l3": "v3", **ROOT_LABEL}
        info = await client.update(name, {"l4": "v4", **ROOT_LABEL}, "labels")
        assert dict(info.labels) == {"l4": "v4", **ROOT_LABEL}
        await _refused(client.update(name, {}, "parent"), Status.INVALID_ARGUMENT)
        assert await client.stat(name) == info
        assert (await client.usage(name)).inodes == (0 if info.kind == Kind.VIEW else 1)
        if info.kind != Kind.COMMITTED:
            assert (await client.mounts(name)).type == ("overlay" if info.parent else "bind")
    await client.cleanup()
    assert len(await client.list()) == len(expected)


async def test_removals(client: ContainerdClient) -> None:
    await client.prepare("committed-a")
    await client.commit("committed-1", "committed-a")
    await client.prepare("reuse-1", "committed-1")
    await client.remove("reuse-1")
    await client.view("reuse-1", "committed-1")
    await client.remove("reuse-1")
    await client.prepare("reuse-1")
    await client.remove("committed-1")
    await client.commit("committed-1", "reuse-1")
    # From the top down only.
    await client.layer("inter", "committed-1", {})
    await client.prepare("top", "inter")
    for name in ("inter", "committed-1"):
        await _refused(client.remove(name), Status.FAILED_PRECONDITION)
    for name in ("top", "inter", "committed-1"):
        await client.remove(name)
    assert await client.list() == []


async def test_walks(client: ContainerdClient) -> None:
    root = {"containerd.io/gc.root": "check-walk"}
    await client.prepare("a-np", labels=root)
    await client.prepare("p-tmp", labels=root)
    await client.commit("p", "p-tmp", root)
    await client.prepare("a", "p", root)
    await client.view("v", "p")
    await client.update("v", root)
    await client.prepare("p-wl-tmp", labels=root)
    await client.commit("p-wl", "p-wl-tmp", {"l": "1", **root})
    await client.prepare("a-wl", "p-wl", {"l": "2", **root})
    await client.view("v-wl", "p-wl")
    await client.update("v-wl", {"l": "3", **root})
    await client.prepare("a-np-wl", labels={"l": "2", **root})
    walked = 'labels."containerd.io/gc.root"==check-walk'
    for filters, names in (
        ([walked], "a a-np a-np-wl a-wl p p-wl v v-wl"),
        ([f"kind==active,{walked}"], "a a-np a-np-wl a-wl"),
        ([f"kind==view,{walked}"], "v v-wl"),
        ([f"kind==committed,{walked}"], "p p-wl"),
        ([f"labels.l==1,{walked}"], "p-wl"),
        ([f"labels.l==2,{walked}"], "a-np-wl a-wl"),
        ([f"labels.l==3,{walked}"], "v-wl"),
        ([f"parent==p,{walked}"], "a v"),
        (["parent==p", "labels.l==1"], "a p-wl v"),
        ([f"parent==p-wl,{walked}"], "a-wl v-wl"),
        ([f'parent=="",{walked}'], "a-np a-np-wl p p-wl"),
        ([f"name==a,{walked}"], "a"),
    ):
        infos = await client.list(*filters)
        assert sorted(info.name for info in infos) == names.split(), filters
        for info in infos:
            assert await client.stat(info.name) == info
