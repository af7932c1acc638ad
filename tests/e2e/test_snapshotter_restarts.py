"""Restarts and crashes of snapshotter, containerd and dockerd: nobody's containers fail, and all of them come back.

The snapshotter's socket is handed from one process to the next, as systemd does. containerd gives a server a second for
its first frame, which is too little to rely on where tests run: it stands still while there is no snapshotter.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from harness.containerd_node import ContainerdNode
from harness.processes import wait_until
from harness.stratum0 import Stratum0
from tests.support.e2e import BASE, THIN, Images
from tests.support.fuse import stop
from tests.support.mounts import mounts_below

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def containerd_node(
    stratum0: Stratum0, images: Images, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ContainerdNode]:
    directory = tmp_path_factory.mktemp("restarts")
    node = ContainerdNode(
        name="restarts",
        directory=directory,
        cvmfs_root=stratum0.cvmfs_root,
        snapshotter_env=stratum0.containerd_node_settings,
        handed_over=True,
    )
    try:
        await node.start()
        await images.load(node.engine)
        await images.load_thin(node.engine)
        yield node
        assert (await node.engine.docker("ps", "--all", "--quiet")).text == ""
    finally:
        await node.close()
    assert mounts_below(directory) == []


async def _runs(node: ContainerdNode, image: str) -> None:
    options = ("--rm", "--network=none", "--entrypoint=cat")
    done = await node.engine.docker("run", *options, image, "/etc/debian_version")
    assert done.text


async def test_containers_start_while_the_snapshotter_is_restarted(containerd_node: ContainerdNode) -> None:
    """Whatever they are doing at that moment."""
    started = 0
    restarted = False

    async def work(image: str) -> None:
        nonlocal started
        while not restarted:
            await _runs(containerd_node, image)
            started += 1

    async with asyncio.TaskGroup() as tasks:
        for image in (BASE, THIN):
            tasks.create_task(work(image))
        for _ in range(3):
            before = started

            async def more(before: int = before) -> bool:
                return started > before

            await wait_until(more, what="a container has run")
            stop(containerd_node.engine.containerd.pid)
            try:
                assert await containerd_node.snapshotter.stop() == 0
                await containerd_node.start_snapshotter()
            finally:
                os.kill(containerd_node.engine.containerd.pid, signal.SIGCONT)
        restarted = True
    assert started >= 5


@pytest.mark.parametrize("image", [BASE, THIN])
async def test_containers_start_as_soon_as_there_is_a_snapshotter_again(
    containerd_node: ContainerdNode, image: str
) -> None:
    await containerd_node.snapshotter.kill()
    # Its socket is served by now, its state is not open yet.
    await containerd_node.start_snapshotter()
    await _runs(containerd_node, image)


async def test_containers_outlive_everybody_and_come_back(containerd_node: ContainerdNode) -> None:
    engine = containerd_node.engine
    # As process 1, sleep ignores SIGTERM, and Docker would wait for it.
    options = ("--detach", "--restart=always", "--network=none", "--stop-signal=SIGKILL")
    always = [(await engine.docker("run", *options, image, "sleep", "infinity")).text for image in (BASE, THIN)]
    for container in always:
        await engine.docker("exec", container, "sh", "-c", "echo kept >/kept")

    async def run() -> bool:
        states = (await engine.docker("inspect", "--format={{.State.Running}}", *always)).text.splitlines()
        return states == ["true", "true"]

    async def are_whole() -> None:
        await wait_until(run, what="the containers run again")
        for container in always:
            shown = (await engine.docker("exec", container, "cat", "/kept", "/etc/debian_version")).text
            assert shown.startswith("kept\n")

    # The snapshotter alone, then with containerd under it, then with dockerd, then everything at once.
    await containerd_node.snapshotter.kill()
    await are_whole()
    await containerd_node.start_snapshotter()
    await engine.containerd.kill()
    await engine.kill()
    await engine.start()
    await are_whole()
    await engine.stop()
    assert await containerd_node.snapshotter.stop() == 0
    await containerd_node.start_snapshotter()
    await engine.start()
    await are_whole()
    await engine.docker("restart", *always)
    await are_whole()
    for image in (BASE, THIN):
        await _runs(containerd_node, image)
    await engine.docker("rm", "--force", *always)
