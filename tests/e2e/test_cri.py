"""What a kubelet asks for, of a node whose images are made of published layers: nothing of those is downloaded."""

import asyncio
import io
import re
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
from grpclib import GRPCError

from harness.commands import run
from harness.containers import Container
from harness.cri.client import CriClient, Pod
from harness.cri.node import CriNode
from harness.images import write_image
from harness.processes import wait_until
from harness.registry import Registry
from harness.stratum0 import Stratum0
from harness.trees import CONTAINER_EXCLUSIONS, Tree, differences, read_directory
from services.snapshotter.snippets import NAME
from tests.support.commands import docker2cvmfs
from tests.support.containerd import ContainerdClient
from tests.support.e2e import Images
from tests.support.mounts import mounts_below

pytestmark = pytest.mark.asyncio(loop_scope="session")

_NUMBERS = count()


@dataclass(frozen=True, kw_only=True)
class Kubernetes:
    """A node, and the registry that it pulls from."""

    node: CriNode
    registry: Registry
    published: str
    """An image whose layers are all in the repository."""
    founded: str
    """The same on a layer that the repository has not."""
    mixed: str
    """The same and a layer on top that the repository has not."""
    thin: str
    """The base image as a thin one."""

    async def snapshots(self) -> dict[str, int]:
        """Return the snapshotter's snapshots, and what they take."""
        async with ContainerdClient.connected(self.node.socket) as client:
            return {info.name: (await client.usage(info.name)).size for info in await client.list()}

    async def remove_all(self) -> None:
        """Remove all images, and wait until nothing is left of them."""
        for image in await self.node.client.images():
            await self.node.client.remove_image(image.id)

        async def nothing() -> bool:
            return await self.snapshots() == {} and self.node.downloaded() == 0

        await wait_until(nothing, what="nothing is left of the images")


async def _still(client: CriClient, pod: Pod, image: str) -> Container:
    """Start a container that does nothing."""
    identity = await client.create(pod, f"still-{next(_NUMBERS)}", image, "sleep", "infinity")
    await client.start(identity)
    return Container(id=identity, pid=await client.process(identity))


def _write_layer(destination: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(destination, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1_600_000_000
            if name.endswith("/"):
                member.type, member.mode = tarfile.DIRTYPE, 0o751
            archive.addfile(member, io.BytesIO(content))
    return destination


def _write_images(directory: Path, base: Path) -> None:
    """Write the archives of an image with a layer that changes and deletes, and of others that are made of it."""
    changes = {
        "srv/": b"",
        "srv/added": b"added",
        "etc/": b"",
        "etc/.wh.issue": b"",
        "etc/hostname-of-image": b"image",
        "opt/": b"",
        "opt/.wh..wh..opq": b"",
    }
    layers = [base, _write_layer(directory / "changes.tar", changes)]
    config = {"Entrypoint": ["/bin/sleep", "infinity"], "Env": ["PATH=/usr/bin:/bin"]}
    write_image(directory / "published.tar", name="published:1", layers=layers, config=config)
    below = _write_layer(directory / "below.tar", {"srv/": b""})
    write_image(directory / "founded.tar", name="founded:1", layers=[below, *layers], config=config)
    more = _write_layer(directory / "more.tar", {"srv/more": b"more"})
    write_image(directory / "mixed.tar", name="mixed:1", layers=[*layers, more], config=config)


async def _push(registry: Registry, archive: Path, name: str, *options: str) -> str:
    image = f"{registry.address}/{name}:1"
    await run(
        "skopeo",
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        *options,
        f"docker-archive:{archive}",
        f"docker://{image}",
    )
    return image


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kubernetes(
    stratum0: Stratum0, images: Images, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Kubernetes]:
    directory = tmp_path_factory.mktemp("cri")
    registry = Registry(directory / "registry")
    published = f"{registry.address}/published:1"
    node = CriNode(
        name="kubernetes",
        directory=directory / "node",
        pause=published,
        snapshotter_env={
            **stratum0.containerd_node_settings,
            "SNAPSHOTTER_CVMFS_ROOT": str(stratum0.cvmfs_root),
            "SNAPSHOTTER_COPY_INTERVAL": "0.3",
        },
    )
    await asyncio.to_thread(_write_images, directory, images.base)
    try:
        await registry.start()
        await _push(registry, directory / "published.tar", "published")
        done = await docker2cvmfs(
            *("publish", "--insecure", "--publisher", stratum0.url, published, stratum0.repository),
            env=stratum0.store.environment,
        )
        assert done.status == 0, done.errors
        await node.start()
        yield Kubernetes(
            node=node,
            registry=registry,
            published=published,
            founded=await _push(registry, directory / "founded.tar", "founded"),
            mixed=await _push(registry, directory / "mixed.tar", "mixed"),
            thin=await _push(registry, images.directory / "debian-thin.tar", "thin"),
        )
    finally:
        await node.close()
        await registry.close()
    assert mounts_below(directory) == []


@pytest_asyncio.fixture(loop_scope="session")
async def pod(kubernetes: Kubernetes) -> AsyncIterator[Pod]:
    node = kubernetes.node
    pod = await node.client.run_pod("pod", logs=node.logs, cgroup=node.cgroup)
    yield pod
    await node.client.remove_pod(pod)
    await kubernetes.remove_all()


async def test_nothing_of_published_layers_is_downloaded(kubernetes: Kubernetes) -> None:
    client, node = kubernetes.node.client, kubernetes.node
    identity = await client.pull(kubernetes.published)
    assert 0 < node.downloaded() < 8 << 10
    (image,) = await client.images()
    assert (image.id, list(image.repo_tags)) == (identity, [kubernetes.published])
    # As the manifest says it.
    assert image.size > 1 << 20
    assert set((await kubernetes.snapshots()).values()) == {0}
    assert len(await kubernetes.snapshots()) == 2
    # containerd 1.7 counts what the default snapshotter has, and no other.
    file_system = await client.image_file_system()
    assert file_system.fs_id.mountpoint.endswith("overlayfs")
    assert file_system.used_bytes.value == 0
    await kubernetes.remove_all()


async def test_a_pod(kubernetes: Kubernetes, pod: Pod) -> None:
    client, node = kubernetes.node.client, kubernetes.node
    assert (await client.address(pod)).startswith("10.88.0.")
    await client.pull(kubernetes.published)
    container = await client.create(
        pod, "writer", kubernetes.published, "sh", "-c", "echo started; exec sleep infinity"
    )
    await client.start(container)
    log = node.logs / "writer.log"

    async def written() -> bool:
        return log.exists() and log.read_text().endswith(" stdout F started\n")

    await wait_until(written, what="the container's output is in its log")
    done = await client.execute(container, "sh", "-c", "cat /srv/added; ls /etc/issue; echo kept > /kept; hostname")
    assert (done.stdout, done.exit_code) == (b"addedpod\n", 0)
    assert b"/etc/issue" in done.stderr
    # Under a running pod, both end and start again.
    await node.containerd.stop()
    await node.start_containerd()
    assert [list(image.repo_tags) for image in await client.images()] == [[kubernetes.published]]
    await node.snapshotter.kill()
    assert (await client.execute(container, "cat", "/kept")).stdout == b"kept\n"
    await node.start_snapshotter()

    async def runs() -> bool:
        # containerd connects again after a second, or two.
        try:
            other = await _still(client, pod, kubernetes.published)
        except GRPCError:
            return False
        return (await client.execute(other.id, "cat", "/srv/added")).stdout == b"added"

    await wait_until(runs, what="a container runs after the restart")
    await client.stop(container)
    await client.remove(container)


async def test_the_same_files_as_downloaded(kubernetes: Kubernetes) -> None:
    node = kubernetes.node
    trees: list[Tree] = []
    for client in (node.client, node.others):
        await client.pull(kubernetes.published)
        pod = await client.run_pod("compared", logs=node.logs, cgroup=node.cgroup)
        container = await _still(client, pod, kubernetes.published)
        trees.append(await asyncio.to_thread(read_directory, container.root, exclusions=CONTAINER_EXCLUSIONS))
        assert (node.downloaded() > 1 << 20) is (client is node.others)
        await client.remove_pod(pod)
        await kubernetes.remove_all()
    assert len(trees[0]) > 500
    assert differences(trees[0], trees[1], names=("published", "downloaded")) == []


async def test_changes_are_an_ordinary_layer(kubernetes: Kubernetes, pod: Pod, tmp_path: Path) -> None:
    """As of every image that is not thin: containerd's own differ finds them."""
    client, node = kubernetes.node.client, kubernetes.node
    await client.pull(kubernetes.published)
    container = await _still(client, pod, kubernetes.published)
    await client.execute(container.id, "sh", "-c", "echo kept > /kept; rm /srv/added")
    options = ("--address", node.containerd_socket, "--namespace=k8s.io")
    await run(
        *("ctr", *options, "snapshots", f"--snapshotter={NAME}", "diff", container.id), output=tmp_path / "layer.tar"
    )
    with tarfile.open(tmp_path / "layer.tar") as layer:
        names = layer.getnames()
    assert {"kept", "srv/.wh.added"} <= set(names)
    # Beside these there are mount points.
    assert {name.partition("/")[0] for name in names} <= {"kept", "srv", "etc", "dev", "proc", "sys"}


async def test_a_layer_that_is_not_published_is_downloaded(kubernetes: Kubernetes, pod: Pod) -> None:
    client, node = kubernetes.node.client, kubernetes.node
    before = node.downloaded()
    await client.pull(kubernetes.mixed)
    assert node.downloaded() - before < 16 << 10
    container = await _still(client, pod, kubernetes.mixed)
    done = await client.execute(container.id, "cat", "/srv/added", "/srv/more")
    assert done.stdout == b"addedmore"


async def test_what_is_above_a_layer_that_is_not_published_is_downloaded(kubernetes: Kubernetes) -> None:
    await kubernetes.node.client.pull(kubernetes.founded)
    assert kubernetes.node.downloaded() > 1 << 20
    assert all((await kubernetes.snapshots()).values())
    await kubernetes.remove_all()


async def test_a_thin_image(kubernetes: Kubernetes, pod: Pod) -> None:
    client = kubernetes.node.client
    await client.pull(kubernetes.thin)
    container = await _still(client, pod, kubernetes.thin)
    done = await client.execute(container.id, "sh", "-c", "cat /etc/debian_version; ls /thin.json")
    assert done.stdout.startswith(b"13")
    assert b"No such file" in done.stderr


async def test_pods_of_another_runtime_need_the_content(kubernetes: Kubernetes) -> None:
    """What is not downloaded for the pods of one snapshotter cannot be unpacked for those of another."""
    node = kubernetes.node
    await node.client.pull(kubernetes.published)
    with pytest.raises(GRPCError, match=r"error unpacking image.*content digest.*not found"):
        await node.others.run_pod("other", logs=node.logs, cgroup=node.cgroup)
    # Another pull, for these, downloads it.
    await node.others.pull(kubernetes.published)
    assert node.downloaded() > 1 << 20
    await node.others.remove_pod(await node.others.run_pod("another", logs=node.logs, cgroup=node.cgroup))
    await kubernetes.remove_all()


async def test_pods_of_another_runtime_do_not_need_it(kubernetes: Kubernetes) -> None:
    node = kubernetes.node
    await node.snapshotter.stop()
    await node.others.pull(kubernetes.founded)
    pod = await node.others.run_pod("ordinary", logs=node.logs, cgroup=node.cgroup)
    container = await _still(node.others, pod, kubernetes.founded)
    assert (await node.others.execute(container.id, "cat", "/srv/added")).stdout == b"added"
    with pytest.raises(GRPCError, match=re.escape(str(node.socket))):
        await node.client.run_pod("asking", logs=node.logs, cgroup=node.cgroup)
    await node.others.remove_pod(pod)
    await node.start_snapshotter()
    await kubernetes.remove_all()
