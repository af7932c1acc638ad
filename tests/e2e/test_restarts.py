"""Crashes and restarts of driver and engine: containers work on, nothing leaks."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from harness.node import Node
from harness.processes import wait_until
from harness.stratum0 import Stratum0
from tests.support import cvmfs2, fuse
from tests.support.containers import Trio
from tests.support.e2e import BASE, REPOSITORY, THIN, Nodes
from tests.support.mounts import mounts_below
from tests.support.node_traces import NodeTraces

pytestmark = pytest.mark.asyncio(loop_scope="session")

_SETTINGS = {"GRAPHDRIVER_COPY_INTERVAL": "0.2"}
"""Copies of committed layers go as soon as they are published."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def plain_node(nodes: Nodes) -> Node:
    return await nodes.start(driver_env=_SETTINGS)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def live_node(nodes: Nodes) -> Node:
    """A node whose containers are meant to survive dockerd."""
    return await nodes.start(driver_env=_SETTINGS, engine_arguments=["--live-restore"])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client_node(nodes: Nodes, stratum0: Stratum0, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A node whose driver mounts repositories itself, with a stand-in client that outlives it."""
    directory = tmp_path_factory.mktemp("client")
    (directory / "source").mkdir()
    (directory / "source" / REPOSITORY).symlink_to(stratum0.tree)
    settings = {
        "GRAPHDRIVER_REPOSITORY_MOUNTS": "driver",
        "GRAPHDRIVER_CVMFS2": str(cvmfs2.install(directory, directory / "source")),
        "GRAPHDRIVER_REPOSITORY_LINGER": "0.2",
    }
    return await nodes.start(driver_env={**_SETTINGS, **settings}, engine_arguments=["--live-restore"])


async def _restart_driver(node: Node) -> None:
    assert await node.driver.stop() == 0
    await node.start_driver()


async def _restart_engine(node: Node) -> None:
    await node.engine.stop()
    await node.engine.start()


async def _kill_driver(node: Node) -> None:
    await node.driver.kill()
    await node.start_driver()


async def _kill_engine(node: Node) -> None:
    await node.engine.kill()
    await node.engine.start()


async def _kill_both(node: Node) -> None:
    await node.engine.kill()
    await node.driver.kill()
    await node.start_driver()
    await node.engine.start()


async def _lose_power(node: Node) -> None:
    """All processes and all mounts go, the files stay."""
    await node.engine.kill()
    await node.driver.kill()
    await node.engine.close()
    await node.start_driver()
    await node.engine.start()


async def _kill_driver_and_client(node: Node) -> None:
    """End both, as the end of a managed plugin does; the engine goes on."""
    await _kill_client(node)
    await _kill_driver(node)


async def _kill_all_three(node: Node) -> None:
    await _kill_client(node)
    await _kill_both(node)


async def _kill_client(node: Node) -> None:
    os.kill(_client(node), signal.SIGKILL)


async def _kill_driver_beside_a_hung_client(node: Node) -> None:
    fuse.stop(_client(node))
    try:
        await _kill_driver(node)
    finally:
        os.kill(_client(node), signal.SIGCONT)


def _client(node: Node) -> int:
    source = Path(node.driver.env["GRAPHDRIVER_CVMFS2"]).with_name("source")
    return cvmfs2.serving_process(source, REPOSITORY)


@asynccontextmanager
async def _nothing_leaks(node: Node) -> AsyncIterator[None]:
    before = NodeTraces.of(node)
    yield
    for image in (BASE, THIN):
        await node.engine.docker("run", "--rm", "--network=none", image, "true")
    await NodeTraces.settle(node, before)


Crash = Callable[[Node], Awaitable[None]]
Reunion = Callable[[Trio], Awaitable[None]]
"""What is done to the running container after a crash, so that it runs."""


async def _everything_works_after(crashes: Sequence[Crash], node: Node, directory: Path, reunion: Reunion) -> None:
    """Do everything with containers that have gone through one crash after the other."""
    async with _nothing_leaks(node):
        trios = await asyncio.gather(*(Trio.make(node.engine, image) for image in (BASE, THIN)))
        for crash in crashes:
            await crash(node)
            for trio in trios:
                await reunion(trio)
                await trio.has_its_files()
        for number, trio in enumerate(trios):
            await trio.use(directory / str(number))


async def test_containers_run_on_without_the_driver(plain_node: Node, tmp_path: Path) -> None:
    crashes = (_restart_driver, _kill_driver)
    await _everything_works_after(crashes, plain_node, tmp_path, Trio.has_survived)


@pytest.mark.parametrize("crashes", [(_restart_engine, _kill_engine, _kill_both), (_lose_power,)])
async def test_containers_end_with_the_engine_and_start_again(
    plain_node: Node, crashes: Sequence[Crash], tmp_path: Path
) -> None:
    await _everything_works_after(crashes, plain_node, tmp_path, Trio.start_again)


async def test_containers_run_on_without_the_engine(live_node: Node, tmp_path: Path) -> None:
    crashes = (_restart_engine, _kill_engine, _kill_both)
    await _everything_works_after(crashes, live_node, tmp_path, Trio.has_survived)


async def test_containers_run_on_upon_a_repository_that_the_driver_mounted(client_node: Node, tmp_path: Path) -> None:
    crashes = (_restart_driver, _kill_both, _kill_driver_beside_a_hung_client)
    await _everything_works_after(crashes, client_node, tmp_path, Trio.has_survived)


async def test_containers_whose_repository_died_work_after_a_restart(client_node: Node, tmp_path: Path) -> None:
    crashes = (_kill_client, _kill_driver_and_client, _kill_all_three)
    await _everything_works_after(crashes, client_node, tmp_path, Trio.restart)


@pytest.mark.parametrize("image", [BASE, THIN])
async def test_a_request_waits_for_a_driver_that_is_restarted(plain_node: Node, image: str) -> None:
    node = plain_node
    async with _nothing_leaks(node):
        await node.driver.kill()
        logged = node.engine.dockerd.log.stat().st_size
        run = asyncio.create_task(node.engine.docker("run", "--rm", "--network=none", image, "echo", "works"))
        await _engine_retries(node, since=logged)
        await node.start_driver()
        assert (await run).text == "works"


async def test_the_engine_waits_for_a_driver_that_starts_after_it(plain_node: Node) -> None:
    node = plain_node
    async with _nothing_leaks(node):
        await node.stop()
        assert mounts_below(node.directory) == []
        logged = node.engine.dockerd.log.stat().st_size
        start = asyncio.create_task(node.engine.start())
        await _engine_retries(node, since=logged)
        await node.start_driver()
        await start


async def _engine_retries(node: Node, *, since: int) -> None:
    """Wait until the engine, from a position in its log on, has not reached the driver and tries again."""

    async def retries() -> bool:
        with node.engine.dockerd.log.open("rb") as log:
            log.seek(since)
            return b"retrying in" in log.read()

    await wait_until(retries, what="the engine tries again to reach its driver")
