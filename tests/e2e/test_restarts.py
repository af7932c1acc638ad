"""Crashes and restarts of driver and engine: containers work on, nothing leaks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from harness.node import Node
from harness.processes import wait_until
from tests.support.containers import Trio
from tests.support.e2e import BASE, THIN, Nodes
from tests.support.node_traces import NodeTraces, driver_home

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


@asynccontextmanager
async def _nothing_leaks(node: Node) -> AsyncIterator[None]:
    before = NodeTraces.of(node)
    yield
    copies = driver_home(node) / "copies"
    await wait_until(
        lambda: asyncio.sleep(0, not list(copies.iterdir())), timeout=20, what="committed layers are published"
    )
    for image in (BASE, THIN):
        await node.engine.docker("run", "--rm", "--network=none", image, "true")
    assert NodeTraces.of(node).since(before) == []


Crash = Callable[[Node], Awaitable[None]]


async def _everything_works_after(crash: Crash, node: Node, directory: Path, *, survived: bool) -> None:
    async with _nothing_leaks(node):
        trios = await asyncio.gather(*(Trio.make(node.engine, image) for image in (BASE, THIN)))
        await crash(node)
        for number, trio in enumerate(trios):
            await trio.use(survived=survived, directory=directory / str(number))


@pytest.mark.parametrize("crash", [_restart_driver, _kill_driver])
async def test_containers_run_on_without_the_driver(plain_node: Node, crash: Crash, tmp_path: Path) -> None:
    await _everything_works_after(crash, plain_node, tmp_path, survived=True)


@pytest.mark.parametrize("crash", [_restart_engine, _kill_engine, _kill_both, _lose_power])
async def test_containers_end_with_the_engine_and_start_again(plain_node: Node, crash: Crash, tmp_path: Path) -> None:
    await _everything_works_after(crash, plain_node, tmp_path, survived=False)


@pytest.mark.parametrize("crash", [_restart_engine, _kill_engine, _kill_both])
async def test_containers_run_on_without_the_engine(live_node: Node, crash: Crash, tmp_path: Path) -> None:
    await _everything_works_after(crash, live_node, tmp_path, survived=True)
