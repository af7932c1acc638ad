"""Layers of ordinary images that a repository holds: which are not unpacked, and what stands on them."""

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpclib import GRPCError, Status
from structlog.testing import capture_logs

from services.common.layout import LayerLayout, sidecar_path
from services.snapshotter.proto.snapshots_pb2 import Kind
from services.snapshotter.proto.types_pb2 import Mount
from services.snapshotter.settings import RemoteSnapshots
from tests.snapshotter.conftest import Snapshotters
from tests.support.containerd import ContainerdClient, lowers, mounted, option
from tests.support.fuse import served, stop
from tests.support.repositories import Repository, digest_of, thin_json

REF = "containerd.io/snapshot.ref"
DIGEST = "containerd.io/snapshot/cri.layer-digest"


def diff_id(name: str) -> str:
    return hashlib.sha256(f"tar of {name}".encode()).hexdigest()


def chain_of(*names: str) -> str:
    """Return the chain ID of layers, base first."""
    chain = f"sha256:{diff_id(names[0])}"
    for name in names[1:]:
        chain = f"sha256:{hashlib.sha256(f'{chain} sha256:{diff_id(name)}'.encode()).hexdigest()}"
    return chain


def labels_of(names: Sequence[str], **changed: str) -> dict[str, str]:
    """Return what CRI sends for the topmost of some layers."""
    return {
        REF: changed.get("ref", chain_of(*names)),
        DIGEST: changed.get("digest", f"sha256:{digest_of(names[-1])}"),
        "containerd.io/snapshot/cri.image-ref": "registry.example.org/image:1",
    }


class Puller:
    """containerd as it pulls images of one namespace."""

    _sequence = 0

    def __init__(self, client: ContainerdClient, namespace: str = "k8s.io") -> None:
        self._client = client
        self._namespace = namespace

    def _key(self, key: str) -> str:
        Puller._sequence += 1
        return f"{self._namespace}/{Puller._sequence}/{key}"

    async def found(self, name: str, parent: str, labels: Mapping[str, str]) -> str:
        """Ask for a layer that is not to be unpacked, and return the name of the snapshot that stands for it."""
        with pytest.raises(GRPCError) as error:
            await self._client.prepare(self._key(f"extract-1-AbC {name}"), parent, labels)
        assert error.value.status is Status.ALREADY_EXISTS
        wanted = f'labels."{REF}"=={labels[REF]},parent=="{parent}"'
        (info,) = await self._client.list(wanted)
        assert info.kind == Kind.COMMITTED
        return info.name

    async def unpacked(self, name: str, parent: str, labels: Mapping[str, str], files: Mapping[str, str]) -> str:
        """Ask for a layer, unpack it, and return the name of its snapshot."""
        key = self._key(f"extract-1-AbC {name}")
        mount = await self._client.prepare(key, parent, labels)
        tree = Path(mount.source if mount.type == "bind" else option(mount, "upperdir"))
        for path, content in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(content)
        committed = self._key(name)
        await self._client.commit(committed, key, labels)
        return committed

    async def pull(self, *names: str) -> str:
        """Pull an image all layers of which are found; return the topmost one's snapshot."""
        parent = ""
        for number in range(len(names)):
            parent = await self.found(names[number], parent, labels_of(names[: number + 1]))
        return parent

    async def container(self, parent: str) -> Mount:
        return await self._client.prepare(self._key("container"), parent)


@pytest.fixture
def snapshotters(snapshotters: Snapshotters) -> Snapshotters:
    changed = {"remote": RemoteSnapshots.CRI, "lookup_timeout": 60}
    return Snapshotters(snapshotters.settings.model_copy(update=changed))


@pytest.fixture
async def client(snapshotters: Snapshotters) -> AsyncIterator[ContainerdClient]:
    async with snapshotters.running() as client:
        yield client


@pytest.fixture
def puller(client: ContainerdClient) -> Puller:
    return Puller(client)


@pytest.fixture
def image(repository: Repository) -> Repository:
    """The repository, with three layers that stand on each other."""
    repository.publish("a", {"a": "1", "gone": "1", "dir/a": "1"}, diff_id=diff_id("a"))
    repository.publish("b", {"b": "2", "dir/b": "2"}, diff_id=diff_id("b"), whiteouts=[b"gone"], opaque=[b"dir"])
    repository.publish("c", {"c": "3"}, diff_id=diff_id("c"))
    return repository


def names_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def open_repositories(root: Path) -> set[str]:
    """Return the repositories that this process, in which the snapshotter runs, keeps open."""
    links = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)]
    return {Path(link).name for link in links if Path(link).parent == root}


async def test_published_layers_are_not_unpacked(
    client: ContainerdClient, puller: Puller, image: Repository, state: Path
) -> None:
    top = await puller.pull("a", "b")
    assert list((state / "l").iterdir()) == []
    for info in await client.list():
        usage = await client.usage(info.name)
        assert (usage.size, usage.inodes) == (0, 0)
    container = await puller.container(top)
    assert [path for path in lowers(container) if path.is_relative_to(image.root)] == [image.tree("b"), image.tree("a")]
    with mounted(container) as root:
        assert names_in(root) == ["a", "b", "dir"]
        assert names_in(root / "dir") == ["b"]
        (root / "a").write_text("changed")
    assert Path(option(container, "upperdir"), "a").read_text() == "changed"
    assert await client.mounts((await client.list("kind==active"))[0].name) == container


async def test_only_the_lowest_layers_are_taken(client: ContainerdClient, puller: Puller, image: Repository) -> None:
    # The lowest is not published, so what is above it is unpacked as well.
    local = await puller.unpacked("x", "", labels_of("x"), {"x": "0", "gone": "0"})
    above = await puller.unpacked("xa", local, labels_of("xa"), {"a": "unpacked"})
    with mounted(await puller.container(above)) as root:
        assert names_in(root) == ["a", "gone", "x"]
    # The one in the middle is not.
    base = await puller.pull("a")
    middle = await puller.unpacked("ax", base, labels_of("ax"), {"x": "0"})
    top = await puller.unpacked("axc", middle, labels_of("axc"), {"c": "unpacked"})
    container = await puller.container(top)
    assert lowers(container)[-1] == image.tree("a")
    with mounted(container) as root:
        assert names_in(root) == ["a", "c", "dir", "gone", "x"]
        assert (root / "c").read_text() == "unpacked"
    assert (await client.usage(top)).size > 0


@pytest.mark.parametrize(
    ("namespace", "labels"),
    [
        ("moby", labels_of("a")),
        ("default", labels_of("a")),
        ("k8s.io", {}),
        ("k8s.io", {REF: chain_of("a")}),
        ("k8s.io", {DIGEST: f"sha256:{digest_of('a')}"}),
        ("k8s.io", labels_of("a", digest=f"sha512:{digest_of('a') * 2}")),
        ("k8s.io", labels_of("a", digest="sha256:../../etc")),
        ("k8s.io", labels_of("x")),
        # An image whose documents give another layer's content for this one's.
        ("k8s.io", labels_of("a", ref=chain_of("b"))),
        ("k8s.io", labels_of("a", ref="")),
        ("k8s.io", labels_of("bare")),
        ("k8s.io", labels_of("thin")),
        ("k8s.io", labels_of("damaged")),
        ("k8s.io", labels_of("elsewhere")),
    ],
    ids=[
        *("Docker", "another client", "no labels", "no digest", "no name", "another algorithm", "no digest at all"),
        *("not published", "another chain ID", "an empty name", "no sidecar", "a descriptor in it"),
        *("a damaged sidecar", "another repository"),
    ],
)
async def test_what_is_unpacked(
    client: ContainerdClient, image: Repository, cvmfs_root: Path, namespace: str, labels: dict[str, str]
) -> None:
    for name in ("bare", "damaged"):
        image.publish(name, {"file": "x"}, diff_id=diff_id(name), layout=LayerLayout.DUCC)
    (image.root / sidecar_path(digest_of("bare"))).unlink()
    (image.root / sidecar_path(digest_of("damaged"))).write_text("{}")
    image.publish("thin", {"thin.json": "{}"}, diff_id=diff_id("thin"))
    Repository(cvmfs_root, "other.example.org").publish("elsewhere", {"file": "x"}, diff_id=diff_id("elsewhere"))
    name = await Puller(client, namespace).unpacked("layer", "", labels, {"file": "unpacked"})
    assert [info.name for info in await client.list()] == [name]
    with mounted(await client.prepare("k8s.io/1/container", name)) as root:
        assert (root / "file").read_text() == "unpacked"


async def test_a_layer_above_another_chain_is_unpacked(puller: Puller, image: Repository) -> None:
    base = await puller.pull("a")
    # On this parent, the layer gives another chain ID than it has by itself.
    labels = labels_of("b")
    await puller.unpacked("b", base, labels, {"b": "unpacked"})
    assert await puller.found("b", base, labels_of("ab"))
    assert image.tree("b").exists()


async def test_nothing_is_taken_unless_it_is_set(snapshotters: Snapshotters, image: Repository) -> None:
    settings = snapshotters.settings.model_copy(update={"remote": RemoteSnapshots.OFF})
    assert image.tree("a").exists()
    async with Snapshotters(settings).running() as client:
        await Puller(client).unpacked("a", "", labels_of("a"), {"a": "unpacked"})


async def test_a_layer_is_found_in_either_layout_and_any_repository_that_is_allowed(
    snapshotters: Snapshotters, cvmfs_root: Path
) -> None:
    names = ("missing.example.org", "one.example.org", "two.example.org")
    one, two = (Repository(cvmfs_root, name) for name in names[1:])
    one.publish("a", {"a": "1"}, diff_id=diff_id("a"), layout=LayerLayout.DUCC)
    two.publish("b", {"b": "2"}, diff_id=diff_id("b"))
    settings = snapshotters.settings.model_copy(update={"repositories": names})
    async with Snapshotters(settings).running() as client:
        puller = Puller(client)
        container = await puller.container(await puller.pull("a", "b"))
        assert [two.tree("b"), one.tree("a")] == [path for path in lowers(container) if cvmfs_root in path.parents]
        assert open_repositories(cvmfs_root) == set(names[1:])


async def test_a_layer_has_one_snapshot_however_often_it_is_asked_for(
    client: ContainerdClient, puller: Puller, image: Repository, cvmfs_root: Path
) -> None:
    names = [await puller.found("b", await puller.pull("a"), labels_of("ab")) for _ in range(2)]
    assert names[0] == names[1]
    assert len(await client.list()) == 2
    both = await asyncio.gather(*(puller.found("c", "", labels_of("c")) for _ in range(8)))
    assert len(set(both)) == 1
    # The same content, compressed by somebody else: the layer that was there may have gone since.
    again = image.publish("a2", {"a": "1"}, diff_id=diff_id("a"))
    assert (
        await puller.found("a", "", labels_of("a", digest=f"sha256:{again.digest}"))
        == (await client.stat(names[0])).parent
    )
    container = await puller.container((await client.stat(names[0])).parent)
    assert image.tree("a2") in lowers(container)
    assert open_repositories(cvmfs_root) == {image.name}


async def test_thin_images_and_layers_in_repositories(
    client: ContainerdClient, puller: Puller, image: Repository
) -> None:
    base = await puller.pull("a")
    # A descriptor that somebody has put above decides, as everywhere.
    descriptor = {"thin.json": thin_json(image.url("b"), image.url("c")).decode()}
    thin = await puller.unpacked("thin", base, labels_of(("a", "thin")), descriptor)
    with mounted(await puller.container(thin)) as root:
        assert names_in(root) == ["b", "c", "dir"]
    # A layer that is published is unpacked on a thin image, which is not all in repositories.
    above = await puller.unpacked("c", thin, labels_of(("a", "thin", "c")), {"c": "unpacked"})
    with mounted(await puller.container(above)) as root:
        assert (root / "c").read_text() == "unpacked"
        assert names_in(root) == ["b", "c", "dir"]
    # What deletes a descriptor deletes none of the image's own layers.
    deleting = await puller.unpacked("x", base, labels_of("ax"), {"x": "0"})
    tree = lowers(await puller.container(deleting))[0]
    os.mknod(tree / "thin.json", 0o20000, os.makedev(0, 0))
    os.setxattr(tree, "trusted.overlay.opaque", b"y")
    with mounted(await puller.container(deleting)) as root:
        assert names_in(root) == ["a", "dir", "gone", "x"]
    view = await client.view("k8s.io/1/view", base)
    with mounted(view) as root:
        assert names_in(root) == ["a", "dir", "gone"]


async def test_a_change_of_such_an_image_is_left_to_containerd(
    client: ContainerdClient, puller: Puller, image: Repository
) -> None:
    base = await puller.pull("a", "b")
    container = await puller.container(base)
    Path(option(container, "upperdir"), "new").write_text("x")
    assert image.tree("b") in lowers(container)
    with pytest.raises(GRPCError, match="is no change of a thin image") as error:
        await client.diff([await client.view("k8s.io/1/view", base)], [container], namespace="k8s.io")
    assert error.value.status is Status.UNIMPLEMENTED


async def test_removal(snapshotters: Snapshotters, image: Repository, state: Path, cvmfs_root: Path) -> None:
    async with snapshotters.running() as client:
        puller = Puller(client)
        top = await puller.pull("a", "b")
        assert open_repositories(cvmfs_root) == set()
        await client.prepare("k8s.io/1/container", top)
        assert open_repositories(cvmfs_root) == {image.name}
        base = (await client.stat(top)).parent
        with pytest.raises(GRPCError, match="others stand on it") as error:
            await client.remove(base)
        assert error.value.status is Status.FAILED_PRECONDITION
        house = snapshotters.front_end.snapshotter.house
        await house.keep()
        assert len(list((state / "masks").iterdir())) == 1
        await client.remove("k8s.io/1/container")
        assert open_repositories(cvmfs_root) == set()
        for name in (top, base):
            await client.remove(name)
        await client.cleanup()
        await house.keep()
        assert await client.list() == []
        assert [path for name in ("l", "work", "masks", "trash") for path in (state / name).iterdir()] == []
        # And it can come again.
        await puller.pull("a", "b")


async def test_a_restart_finds_everything(snapshotters: Snapshotters, image: Repository, cvmfs_root: Path) -> None:
    async with snapshotters.running() as client:
        top = await Puller(client).pull("a", "b")
        await client.prepare("k8s.io/1/container", top)
        mount = await client.mounts("k8s.io/1/container")
    # What is there stays, also when nothing more is to be taken.
    for setting in RemoteSnapshots:
        settings = snapshotters.settings.model_copy(update={"remote": setting})
        async with Snapshotters(settings).running() as client:
            assert await client.mounts("k8s.io/1/container") == mount
            assert open_repositories(cvmfs_root) == {image.name}
            with mounted(mount) as root:
                assert names_in(root) == ["a", "b", "dir"]
            await client.prepare("k8s.io/1/other", top)
            await client.remove("k8s.io/1/other")


@asynccontextmanager
async def hanging(
    snapshotters: Snapshotters, image: Repository, source: Path, *, lookup_timeout: float
) -> AsyncIterator[tuple[ContainerdClient, str, int]]:
    """Stop the client of the first of two repositories when an image has been pulled from it.

    Yields a client, the image, and the process that can be told to go on.
    """
    hung = Repository(source, "hung.example.org")
    hung.publish("h", {"h": "1"}, diff_id=diff_id("h"))
    changed = {"repositories": (hung.name, image.name), "lookup_timeout": lookup_timeout}
    settings = snapshotters.settings.model_copy(update=changed)
    with served(hung.root, settings.cvmfs_root / hung.name) as server:
        async with Snapshotters(settings).running() as client:
            top = await Puller(client).pull("h")
            stop(server.pid)
            try:
                yield client, top, server.pid
            finally:
                os.kill(server.pid, signal.SIGCONT)


async def test_a_repository_that_hangs_holds_up_nobody_else(
    snapshotters: Snapshotters, image: Repository, tmp_path: Path
) -> None:
    async with hanging(snapshotters, image, tmp_path, lookup_timeout=60) as (client, hung, process):
        puller = Puller(client)
        pulling = asyncio.create_task(puller.pull("a", "b", "c"))
        starting = asyncio.create_task(puller.container(hung))
        await client.layer("meanwhile", "", {"file": "x"})
        await client.prepare("k8s.io/1/meanwhile", "meanwhile")
        # What is measured, listed and removed is not looked for.
        assert (await client.usage(hung)).size == 0
        assert len(await client.list()) == 3
        await client.remove("k8s.io/1/meanwhile")
        assert not pulling.done()
        assert not starting.done()
        os.kill(process, signal.SIGCONT)
        assert (await starting).type == "overlay"
        assert (await puller.container(await pulling)).type == "overlay"


async def test_a_repository_that_hangs_is_given_up(
    snapshotters: Snapshotters, image: Repository, tmp_path: Path
) -> None:
    async with hanging(snapshotters, image, tmp_path, lookup_timeout=6) as (client, hung, _):
        puller = Puller(client)
        starting = asyncio.create_task(puller.container(hung))
        with capture_logs() as logs:
            # It is asked once, in vain: after that, the repository that has the layer below is asked first.
            assert await puller.pull("a", "b", "c")
        vain = [event["url"].repository for event in logs if event["event"] == "layer_not_looked_up"]
        assert vain == ["hung.example.org"]
        with pytest.raises(GRPCError, match=r"hung\.example\.org does not answer within 6 s") as error:
            await starting
        assert error.value.status is Status.FAILED_PRECONDITION
        await client.remove(hung)
