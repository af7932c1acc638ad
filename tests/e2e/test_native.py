"""The whole circle with a native repository: committed here, published, run elsewhere.

The real CVMFS client is not part of the test environment: a stand-in shows the repository, by means of the reader
(tests/support/cvmfs_client.py).
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.containers import run_container
from harness.demo.playground import write_playground
from harness.engine import Engine
from harness.node import Node
from harness.stratum0 import Stratum0
from harness.thin_images import read_descriptor
from harness.trees import CONTAINER_EXCLUSIONS, Tree, differences, read_directory
from services.common.sidecar import LayerSidecar
from services.publisher.settings import RepositoryKind
from services.repository.native.check.checker import Checker
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.storage.interface import Storage
from tests.support.cvmfs_client import follow
from tests.support.e2e import REPOSITORY, Images, Nodes
from tests.support.edits import make_edits

pytestmark = pytest.mark.asyncio(loop_scope="session")

_IMAGE = "test:playground"


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=[None, "cvmfs"], ids=["directory", "bucket"])
async def native(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stratum0]:
    """A stratum 0 with a native repository, and a client that shows it to nodes."""
    stratum0 = Stratum0(
        directory=tmp_path_factory.mktemp("native"),
        repository=REPOSITORY,
        kind=RepositoryKind.NATIVE,
        bucket=request.param,
    )
    try:
        await stratum0.start()
        stratum0.cvmfs_root.mkdir()
        with stratum0.open_storage(stratum0.directory / "client") as storage:
            async with follow(_reader(stratum0, storage), stratum0.tree):
                yield stratum0
    finally:
        await stratum0.close()


def _reader(stratum0: Stratum0, storage: Storage) -> RepositoryReader:
    return RepositoryReader(storage, name=REPOSITORY, master_keys=[stratum0.keys.public.read_bytes()])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def native_images(native: Stratum0, tmp_path_factory: pytest.TempPathFactory) -> Images:
    """The base image, whose thin form is in the native repository."""
    return await Images.make(native, tmp_path_factory.mktemp("native-images"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def native_nodes(
    native: Stratum0, native_images: Images, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Nodes]:
    """Starts nodes that mount the native repository."""
    async with Nodes(tmp_path_factory.mktemp("native-nodes"), native, native_images) as nodes:
        yield nodes


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def here(native_nodes: Nodes, native_images: Images, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A node with a thin image of two layers, whose local copies go as soon as the repository shows the layer."""
    node = await native_nodes.start(driver_env={"GRAPHDRIVER_COPY_INTERVAL": "0.3"})
    directory = tmp_path_factory.mktemp("playground")
    write_playground(directory / "playground.tar")
    playground = await native_images.publish(directory / "playground.tar")
    native_images.write_thin(_IMAGE, native_images.published.thin, playground)
    await native_images.load_thin(node.engine, _IMAGE)
    return node


async def _read(engine: Engine, image: str) -> Tree:
    container = await run_container(engine, image)
    try:
        return read_directory(container.root, exclusions=CONTAINER_EXCLUSIONS)
    finally:
        await engine.docker("rm", "--force", container.id)


async def test_what_is_committed_here_runs_elsewhere(
    here: Node, native_nodes: Nodes, native: Stratum0, tmp_path: Path
) -> None:
    container = await run_container(here.engine, _IMAGE)
    await make_edits(container.pid)
    before = read_directory(container.root, exclusions=CONTAINER_EXCLUSIONS)
    await here.engine.docker("commit", container.id, "test:committed")
    await here.engine.docker("rm", "--force", container.id)
    await here.engine.docker("save", "test:committed", output=tmp_path / "committed.tar")
    *_, committed = (await read_descriptor(here.engine, "test:committed", tmp_path)).layers
    await native.visible(committed.id)
    elsewhere = await native_nodes.start()
    await elsewhere.engine.docker("load", input=tmp_path / "committed.tar")
    assert differences(before, await _read(elsewhere.engine, "test:committed"), names=("container", "elsewhere")) == []
    assert differences(before, await _read(here.engine, "test:committed"), names=("container", "here")) == []
    # The layer's own tree holds what it deletes.
    sidecar = LayerSidecar.parse((native.home(committed.id) / "layer.json").read_bytes(), where="sidecar")
    assert sidecar.whiteouts
    assert sidecar.opaque
    assert not sidecar.needs_mask
    assert list(elsewhere.state.rglob(f"masks/{committed.id}-*")) == []


async def test_the_repository_is_whole(here: Node, native: Stratum0) -> None:
    del here
    key = native.keys.public.read_bytes()
    with native.open_storage(native.directory / "checker") as storage:
        report = Checker(storage, name=REPOSITORY, master_keys=[key]).run()
    assert report.problems == ()
    assert report.catalogs > 3
