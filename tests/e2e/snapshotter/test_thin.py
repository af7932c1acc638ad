"""Thin images under containerd: what they show, what travels, and the way from and to nodes with the graphdriver."""

import json
import tarfile
from pathlib import Path

import pytest

from harness.commands import CommandError
from harness.containerd_node import ContainerdNode
from harness.containers import run_container
from harness.node import Node
from harness.processes import wait_until
from harness.registry import Registry
from harness.stratum0 import Stratum0
from harness.thin_images import read_descriptor
from harness.trees import differences
from tests.support.commands import docker2cvmfs
from tests.support.e2e import REPOSITORY, THIN, Images
from tests.support.edits import make_edits
from tests.support.playground import IMAGE, THIN_IMAGE, read_image, run_script, tree
from tests.support.saved import read_saved

pytestmark = pytest.mark.asyncio(loop_scope="session")


def _blobs(registry: Registry) -> set[Path]:
    return set((registry.directory / "data/docker/registry/v2/blobs").rglob("data"))


async def test_thin_images_show_the_same_files(containerd_node: ContainerdNode) -> None:
    engine = containerd_node.engine
    ours, regular = [await read_image(engine, image) for image in (THIN_IMAGE, IMAGE)]
    assert len(ours) > 500
    assert differences(ours, regular, names=("thin", "regular")) == []


async def test_the_descriptor_is_in_the_image_and_not_in_its_containers(
    containerd_node: ContainerdNode, tmp_path: Path
) -> None:
    engine = containerd_node.engine
    await engine.docker("create", "--name=looked-at", "--network=none", THIN, "true")
    with pytest.raises(CommandError, match=r"(?i)could not find|no such file"):
        await engine.docker("cp", "looked-at:/thin.json", tmp_path)
    await engine.docker("export", "looked-at", output=tmp_path / "exported.tar")
    with tarfile.open(tmp_path / "exported.tar") as exported:
        names = exported.getnames()
    assert "etc/debian_version" in names
    assert "thin.json" not in names
    await engine.docker("rm", "looked-at")
    await engine.docker("save", THIN, output=tmp_path / "saved.tar")
    saved = read_saved(tmp_path / "saved.tar", since=0)
    assert [list(layer) for layer in saved.layers] == [[b"thin.json"]]


async def test_a_commit_is_published_and_runs_elsewhere(
    containerd_node: ContainerdNode, node: Node, stratum0: Stratum0, registry: Registry, tmp_path: Path
) -> None:
    """Every kind of change is committed, runs before it is published and after, and on a node with the graphdriver."""
    engine, name = containerd_node.engine, f"{registry.address}/committed:latest"
    container = await run_container(engine, THIN_IMAGE)
    await make_edits(container.pid)
    before = tree(container)
    await stratum0.publisher.stop()
    try:
        await engine.docker("commit", container.id, name)
        await engine.docker("rm", "--force", container.id)
        assert differences(before, await read_image(engine, name)) == []
    finally:
        await stratum0.start_publisher()
    descriptor = await read_descriptor(engine, name, tmp_path)
    assert len(descriptor.layers) == 3
    await stratum0.visible(descriptor.layers[-1].id)

    async def gone() -> bool:
        return not list((containerd_node.state / "copies").iterdir())

    await wait_until(gone, what="the local copy is dropped")
    # Nothing but descriptors goes over the wire.
    blobs = _blobs(registry)
    await engine.docker("push", name)
    await engine.docker("rmi", name)
    pushed = [path.stat().st_size for path in _blobs(registry) - blobs]
    assert len(pushed) > 2
    assert max(pushed) <= 10 << 10  # a tar of one file, as it was loaded
    await engine.docker("pull", name)
    assert differences(before, await read_image(engine, name)) == []
    await node.engine.docker("pull", name)
    assert differences(before, await read_image(node.engine, name)) == []
    await engine.docker("rmi", name)
    await node.engine.docker("rmi", name)


async def test_an_image_of_the_graphdriver_runs_and_is_committed_on(
    containerd_node: ContainerdNode, node: Node, tmp_path: Path
) -> None:
    await node.engine.docker("run", "--name=first", "--network=none", THIN, "sh", "-c", "echo 1 >/first; rm /etc/issue")
    await node.engine.docker("commit", "first", "test:first")
    await node.engine.docker("rm", "first")
    descriptor = await read_descriptor(node.engine, "test:first", tmp_path)
    await node.engine.docker("save", "test:first", output=tmp_path / "first.tar")
    await node.engine.docker("rmi", "test:first")
    engine = containerd_node.engine
    await engine.docker("load", input=tmp_path / "first.tar")
    await engine.docker("run", "--name=second", "--network=none", "test:first", "sh", "-c", "echo 2 >/second")
    await engine.docker("commit", "second", "test:second")
    await engine.docker("rm", "second")
    script = "cat /first /second; ls /etc/issue /thin.json 2>&1 | wc -l"
    assert await run_script(engine, "test:second", script) == "1\n2\n2"
    layers = (await read_descriptor(engine, "test:second", tmp_path)).layers
    assert layers[:-1] == descriptor.layers
    # And back again.
    await engine.docker("save", "test:second", output=tmp_path / "second.tar")
    await node.engine.docker("load", input=tmp_path / "second.tar")
    assert await run_script(node.engine, "test:second", script) == "1\n2\n2"
    await node.engine.docker("rmi", "test:second")
    await engine.docker("rmi", "test:first", "test:second")


async def test_an_image_that_was_converted_runs_under_both(
    containerd_node: ContainerdNode, node: Node, stratum0: Stratum0, registry: Registry, images: Images
) -> None:
    engine, name = containerd_node.engine, f"{registry.address}/ordinary:latest"
    await engine.docker("tag", IMAGE, name)
    await engine.docker("push", name)
    await engine.docker("rmi", name)
    thin = f"{registry.address}/converted:latest"
    made = await docker2cvmfs(
        *("make-thin", "--insecure", name, REPOSITORY, "--publisher", stratum0.url, "--push", "--tag", thin, "--json"),
        env=images.stratum0.access.environment,
    )
    assert made.status == 0, made.errors
    regular = await read_image(engine, IMAGE)
    for other in (engine, node.engine):
        await other.docker("pull", thin)
        assert differences(await read_image(other, thin), regular, names=("converted", "regular")) == []
        size = json.loads((await other.docker("image", "inspect", thin)).text)[0]["Size"]
        assert size < 100_000
        await other.docker("rmi", thin)


async def test_a_node_is_moved_and_could_go_back(stratum0: Stratum0, images: Images, tmp_path: Path) -> None:
    directory, root = tmp_path / "node", stratum0.cvmfs_root
    before = Node(name="moved", directory=directory, cvmfs_root=root, driver_env=stratum0.node_settings)
    after = ContainerdNode(
        name="moved", directory=directory, cvmfs_root=root, snapshotter_env=stratum0.containerd_node_settings
    )
    volume, shown_files = "--volume=data:/data", "cat /kept /data/file"
    try:
        await before.start()
        await images.load_thin(before.engine)
        script = "echo kept >/kept; echo of the volume >/data/file"
        options = ("--name=work", "--network=none", volume, "--entrypoint=sh")
        await before.engine.docker("run", *options, THIN, "-c", script)
        await before.engine.docker("commit", "work", "test:kept")
        await before.engine.docker("save", "test:kept", output=tmp_path / "kept.tar")
        await before.close()

        await after.start()
        assert (await after.engine.docker("images", "--quiet")).text == ""
        assert (await after.engine.docker("ps", "--all", "--quiet")).text == ""
        await after.engine.docker("load", input=tmp_path / "kept.tar")
        options = ("--rm", "--network=none", volume, "--entrypoint=sh")
        said = await after.engine.docker("run", *options, "test:kept", "-c", shown_files)
        assert said.text == "kept\nof the volume"
        await after.close()

        await before.start()
        assert (await before.engine.docker("ps", "--all", "--format={{.Names}}")).text == "work"
        said = await before.engine.docker("run", *options, "test:kept", "-c", shown_files)
        assert said.text == "kept\nof the volume"
    finally:
        await after.close()
        await before.close()
