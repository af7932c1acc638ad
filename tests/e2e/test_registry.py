"""Push and pull through a registry, of regular and of thin images."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.containers import run_container
from harness.engine import Engine
from harness.node import Node
from harness.ports import free_ports
from harness.processes import Daemon
from harness.thin_images import read_descriptor
from harness.trees import CONTAINER_EXCLUSIONS, Tree, differences, read_directory
from tests.support.e2e import BASE, THIN, Nodes
from tests.support.mounts import mounts_below

pytestmark = pytest.mark.asyncio(loop_scope="session")

_CONFIGURATION = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {directory}/data}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def registry(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A registry on the loopback interface, which engines speak plain HTTP to; its address."""
    directory = tmp_path_factory.mktemp("registry")
    (port,) = free_ports(1)
    (directory / "config.yml").write_text(_CONFIGURATION.format(directory=directory, port=port))
    daemon = Daemon(
        "registry", ["docker-registry", "serve", str(directory / "config.yml")], log=directory / "registry.log"
    )

    async def answers() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    await daemon.start(answers)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await daemon.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def other(nodes: Nodes) -> Node:
    """Another node."""
    return await nodes.start()


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def _clean(node: Node, other: Node) -> AsyncIterator[None]:
    yield
    for each in (node, other):
        await each.stop()
        assert mounts_below(each.directory) == []


async def _tree(engine: Engine, image: str) -> Tree:
    container = await run_container(engine, image)
    try:
        return read_directory(container.root, exclusions=CONTAINER_EXCLUSIONS)
    finally:
        await engine.docker("rm", "--force", container.id)


async def _identity(engine: Engine, image: str) -> tuple[str, list[str]]:
    """Return an image's id and its layers' diff IDs."""
    [document] = json.loads((await engine.docker("image", "inspect", image)).text)
    return document["Id"], document["RootFS"]["Layers"]


async def _changed(engine: Engine, image: str, name: str) -> None:
    container = await run_container(engine, image)
    script = "echo new > /new; rm /etc/debian_version; chmod 600 /etc/passwd; mkdir /dir; ln /new /dir/hard"
    await engine.docker("exec", container.id, "sh", "-c", script)
    await engine.docker("commit", container.id, name)
    await engine.docker("rm", "--force", container.id)


async def test_a_regular_image_goes_to_another_driver_and_back(
    node: Node, overlay2: Engine, other: Node, registry: str
) -> None:
    name = f"{registry}/regular:1"
    await _changed(node.engine, BASE, name)
    await node.engine.docker("push", name)
    identity = await _identity(node.engine, name)
    trees = {"pushed": await _tree(node.engine, name)}
    for pulling in (overlay2, other.engine):
        await pulling.docker("pull", name)
        assert await _identity(pulling, name) == identity
        trees[pulling.name] = await _tree(pulling, name)
    assert differences(trees["pushed"], trees[other.engine.name], names=("pushed", "pulled")) == []
    # This engine's own unpacking clamps and cuts times of files; everything else is the same.
    left = differences(trees["pushed"], trees["overlay2"], names=("pushed", "overlay2"))
    assert [line for line in left if ": mtime " not in line] == []
    # What overlay2 pushes is the same image.
    await overlay2.docker("tag", name, f"{registry}/regular:2")
    await overlay2.docker("push", f"{registry}/regular:2")
    await node.engine.docker("pull", f"{registry}/regular:2")
    assert await _identity(node.engine, f"{registry}/regular:2") == identity
    for engine in (node.engine, overlay2, other.engine):
        await engine.docker("rmi", name)


async def test_a_pushed_layer_can_be_pulled_again(node: Node, registry: str) -> None:
    """The engine makes a layer's tar anew from its files, and the registry compares the digest."""
    name = f"{registry}/again:1"
    await _changed(node.engine, BASE, name)
    identity = await _identity(node.engine, name)
    await node.engine.docker("push", name)
    await node.engine.docker("rmi", name)
    await node.engine.docker("pull", name)
    assert await _identity(node.engine, name) == identity
    await node.engine.docker("rmi", name)


async def test_a_thin_image_is_its_descriptor_and_runs_elsewhere(
    node: Node, other: Node, registry: str, tmp_path: Path
) -> None:
    name = f"{registry}/thin:1"
    await _changed(node.engine, THIN, name)
    said = (await node.engine.docker("push", name)).text
    identity = await _identity(node.engine, name)
    await other.engine.docker("pull", name)
    assert await _identity(other.engine, name) == identity
    descriptors = [await read_descriptor(engine, name, tmp_path) for engine in (node.engine, other.engine)]
    assert descriptors[0] == descriptors[1]
    assert len(descriptors[0].layers) == 2
    trees = [await _tree(engine, name) for engine in (node.engine, other.engine)]
    assert differences(*trees, names=("here", "elsewhere")) == []
    assert trees[0][b"new"].links == (b"dir/hard", b"new")
    assert b"etc/debian_version" not in trees[0]
    assert b"thin.json" not in trees[0]
    # Nothing but descriptors went over the wire.
    size = (await other.engine.docker("image", "inspect", "--format={{.Size}}", name)).text
    assert int(size) < 2000
    assert "size:" in said
    for engine in (node.engine, other.engine):
        await engine.docker("rmi", name)


async def test_a_thin_image_is_pushed_where_its_repository_cannot_be_reached(
    nodes: Nodes, registry: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    cut_off = await nodes.start(cvmfs_root=tmp_path / "empty")
    name = f"{registry}/cut-off:1"
    await cut_off.engine.docker("tag", THIN, name)
    await cut_off.engine.docker("push", name)
    await cut_off.engine.docker("save", name, output=tmp_path / "saved.tar")
    assert (tmp_path / "saved.tar").stat().st_size < 100_000
