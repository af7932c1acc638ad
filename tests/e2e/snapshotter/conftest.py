"""A node with containerd, which the tests here share; they leave it as they find it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from harness.containerd_node import ContainerdNode
from harness.demo.playground import write_playground
from harness.engine import Engine
from harness.images import write_image
from harness.processes import Service
from harness.registry import Registry
from harness.stratum0 import Stratum0
from tests.support.e2e import Images
from tests.support.mounts import mounts_below
from tests.support.playground import IMAGE, METRICS, THIN_IMAGE, Playground


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def playground(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Playground:
    directory = tmp_path_factory.mktemp("playground")
    archive, layer = directory / "image.tar", directory / "layer.tar"
    write_playground(layer)
    write_image(archive, name=IMAGE, layers=[images.base, layer], config={"Cmd": ["bash"]})
    thin = await images.publish(layer)
    images.write_thin(THIN_IMAGE, images.published.thin, thin)
    return Playground(archive, layer, thin)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def containerd_node(
    stratum0: Stratum0, images: Images, playground: Playground, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ContainerdNode]:
    """A node with both images, regular and thin."""
    directory = tmp_path_factory.mktemp("containerd")
    node = ContainerdNode(
        name="containerd",
        directory=directory,
        cvmfs_root=stratum0.cvmfs_root,
        snapshotter_env={
            **stratum0.containerd_node_settings,
            "LAYER_STORE_RETRY_SECONDS": "1",
            "SNAPSHOTTER_COPY_INTERVAL": "0.3",
            "SNAPSHOTTER_PUBLISH_WAIT": "30",
            "SNAPSHOTTER_METRICS": str(METRICS),
        },
    )
    assert isinstance(node.snapshotter, Service)
    node.snapshotter.forks = None  # its memory is looked at
    try:
        await node.start()
        await images.load(node.engine)
        await images.load_thin(node.engine)
        await images.load_thin(node.engine, THIN_IMAGE)
        await node.engine.docker("load", input=playground.archive)
        yield node
        assert (await node.engine.docker("ps", "--all", "--quiet")).text == ""
    finally:
        await node.close()
    assert mounts_below(directory) == []


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def overlayfs(playground: Playground, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """An engine with containerd's own snapshotter and the same regular image, to compare with."""
    engine = Engine(
        name="overlayfs", directory=tmp_path_factory.mktemp("overlayfs"), storage_driver="overlayfs", snapshotter=""
    )
    try:
        await engine.start()
        await engine.docker("load", input=playground.archive)
        yield engine
    finally:
        await engine.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def registry(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    registry = Registry(tmp_path_factory.mktemp("registry") / "registry")
    await registry.start()
    try:
        yield registry
    finally:
        await registry.close()
