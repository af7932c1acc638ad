"""kill -9 in the middle of things: they fail with a reason, leave nothing behind, and succeed when repeated."""

import asyncio
import io
import os
import signal
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from harness.commands import CommandError
from harness.containers import run_container
from harness.images import write_image
from harness.node import Node
from harness.processes import wait_until
from harness.stratum0 import Stratum0
from harness.thin_images import read_descriptor
from tests.support.e2e import BASE, THIN, Nodes
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.held import HeldImport, HeldRequest
from tests.support.node_traces import NodeTraces, driver_home
from tests.support.tars import END, header, member

pytestmark = pytest.mark.asyncio(loop_scope="session")

_LARGE: Final = 64 << 20
"""Size of a file that takes a driver long enough to be found at work, in bytes."""
_BEGINNING: Final = member(b"marker", b"here") + header(b"large", size=_LARGE) + bytes(_LARGE // 2)
_REST: Final = bytes(_LARGE // 2) + END


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def proxy(stratum0: Stratum0) -> AsyncIterator[FaultProxy]:
    async with FaultProxy.before(stratum0.store.endpoint) as proxy:
        yield proxy


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(nodes: Nodes, proxy: FaultProxy) -> Node:
    """A node that reaches the object store by way of the proxy."""
    settings = {"GRAPHDRIVER_COPY_INTERVAL": "0.2", "LAYER_STORE_ENDPOINT": proxy.endpoint}
    return await nodes.start(driver_env=settings, engine_arguments=["--live-restore"])


@pytest.fixture
async def container(node: Node) -> AsyncIterator[str]:
    """A running thin container with changes that no other one has."""
    async with _changed_container(node, THIN) as container:
        yield container


@asynccontextmanager
async def _changed_container(node: Node, image: str) -> AsyncIterator[str]:
    container = (await run_container(node.engine, image)).id
    await node.engine.docker(
        "exec",
        container,
        "sh",
        "-ec",
        f"echo {os.urandom(8).hex()} > /marker; rm /etc/issue; head -c {_LARGE} /dev/zero > /zeros",
    )
    yield container
    await node.engine.docker("rm", "--force", container)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An archive for `docker load`."""
    layer = tmp_path / "layer.tar"
    layer.write_bytes(_BEGINNING + _REST)
    write_image(tmp_path / "image.tar", name="killed:load", layers=[layer])
    return tmp_path / "image.tar"


async def _filling(node: Node, count: int) -> None:
    """Wait until the driver has begun to fill so many layers that have a file `marker`."""
    home = driver_home(node)
    async with asyncio.timeout(300):
        # More often than `wait_until` looks: 64 MB are soon written.
        while len(list(home.glob("layers/*/incoming/marker"))) != count:  # noqa: ASYNC110 - another process makes them
            await asyncio.sleep(0.002)


async def _import(node: Node) -> None:
    async with HeldImport.of(node.engine, "killed:import") as running:
        await running.feed(_BEGINNING)
        await running.feed(_REST)
        assert (await running.end())[0] == 0
    await _check_and_remove(node, "killed:import")


async def _load(node: Node, image: Path) -> None:
    await node.engine.docker("load", input=image)
    await _check_and_remove(node, "killed:load")


async def _check_and_remove(node: Node, image: str) -> None:
    container = (await node.engine.docker("create", "--network=none", image, "true")).text
    sizes = {}
    for name in ("marker", "large"):
        copied = await node.engine.docker("cp", f"{container}:/{name}", "-")
        with tarfile.open(fileobj=io.BytesIO(copied.stdout)) as archive:
            sizes[name] = archive.getmember(name).size
    assert sizes == {"marker": 4, "large": _LARGE}
    await node.engine.docker("rm", container)
    await node.engine.docker("rmi", image)


async def _commit(node: Node, container: str) -> None:
    """Commit and run the result: the change is there, and what was deleted is not."""
    await node.engine.docker("commit", container, "killed:commit")
    expected = (await node.engine.docker("exec", container, "cat", "/marker")).text
    # By its status, since an engine may lose what a short process prints (moby/moby#27289).
    script = (
        f'test "$(cat /marker)" = {expected}; test ! -e /etc/issue; test -e /etc/debian_version; '
        f'test "$(wc -c < /zeros)" = {_LARGE}'
    )
    await node.engine.docker("run", "--rm", "--network=none", "--entrypoint=sh", "killed:commit", "-exc", script)
    await node.engine.docker("rmi", "killed:commit")


async def _kill_driver_at_work(node: Node, *, layers: int) -> None:
    """Kill and start the driver while it fills so many layers."""
    await _filling(node, layers)
    # Nobody may be holding its work, so it is only now that it cannot end before the kill.
    os.kill(node.driver.pid, signal.SIGSTOP)
    await _filling(node, layers)
    await node.driver.kill()
    await node.start_driver()


async def test_the_driver_while_it_fills_layers_and_uploads_one(
    node: Node, proxy: FaultProxy, container: str, image: Path
) -> None:
    before = NodeTraces.of(node)
    async with _changed_container(node, BASE) as regular:
        regular_commit = asyncio.create_task(node.engine.docker("commit", regular, "killed:commit"))
        await _kill_driver_at_work(node, layers=1)
        await _kill_driver_during_load_import_and_upload(node, proxy, container, image)
        with pytest.raises(CommandError, match="closed pipe"):
            await regular_commit
        await _commit(node, regular)
    assert (await node.engine.docker("images", "--quiet", "killed")).text == ""
    await NodeTraces.settle(node, before)
    await _load(node, image)
    await _import(node)
    await _commit(node, container)
    await NodeTraces.settle(node, before)


async def _kill_driver_during_load_import_and_upload(
    node: Node, proxy: FaultProxy, container: str, image: Path
) -> None:
    held = HeldRequest()
    proxy.faults.append(Fault("^PUT ", request=held))
    commit = asyncio.create_task(node.engine.docker("commit", container, "killed:commit"))
    async with HeldImport.of(node.engine, "killed:import") as running:
        await asyncio.wait_for(held.arrived.wait(), 300)
        await running.feed(_BEGINNING)
        await _filling(node, 1)
        load = asyncio.create_task(node.engine.docker("load", input=image))
        await _kill_driver_at_work(node, layers=2)
        # The engine repeats its requests, but their bodies are used up; it says so after some time.
        with pytest.raises(CommandError, match=r"GraphDriver\.Diff came without a body.*try again"):
            await commit
        with pytest.raises(CommandError, match="read/write on closed pipe"):
            await load
        status, complaint = await running.end()
    assert (status, complaint.count("read/write on closed pipe")) == (1, 1)


@pytest.mark.parametrize("victims", ["engine", "engine and driver"])
async def test_the_engine_while_the_driver_fills_one_layer_and_uploads_another(
    node: Node, proxy: FaultProxy, container: str, victims: str
) -> None:
    before = NodeTraces.of(node)
    held = HeldRequest()
    proxy.faults.append(Fault("^PUT ", request=held))
    commit = asyncio.create_task(node.engine.docker("commit", container, "killed:commit"))
    async with HeldImport.of(node.engine, "killed:import") as running:
        await asyncio.wait_for(held.arrived.wait(), 300)
        await running.feed(_BEGINNING)
        await _filling(node, 1)
        await node.engine.kill()
        if "driver" in victims:
            await node.driver.kill()
            await node.start_driver()
        await node.engine.start()
        with pytest.raises(CommandError):
            await commit
        assert (await running.end())[0] == 1
    # The engine has forgotten the layer that it had begun to register, under every storage driver; it holds nothing.
    (orphan,) = (name for name in NodeTraces.of(node).entries - before.entries if fnmatch(name, "layers/*"))
    assert list((driver_home(node) / orphan / "diff").iterdir()) == []
    held.let_go.set()
    # A commit pauses its container, and this one could not end that.
    await node.engine.docker("unpause", container)
    await _import(node)
    await _commit(node, container)
    await NodeTraces.settle(node, replace(before, entries=before.entries | {orphan}))


@asynccontextmanager
async def _publisher_killed_while_it_fetches(
    stratum0: Stratum0, commit: Callable[[], Awaitable[None]]
) -> AsyncIterator[None]:
    """Make the publisher's store slow, commit, kill the publisher at work; at the end of the context it is back."""
    usual = stratum0.publisher.env
    await stratum0.publisher.stop()
    try:
        async with FaultProxy.before(stratum0.store.endpoint) as slow:
            stratum0.publisher.env = {**usual, "LAYER_STORE_ENDPOINT": slow.endpoint}
            await stratum0.start_publisher()
            held = HeldRequest()
            slow.faults.append(Fault("^GET .*sha256/", response=held))
            await commit()
            await asyncio.wait_for(held.arrived.wait(), 300)
            await stratum0.publisher.kill()
        yield
    finally:
        await stratum0.publisher.kill()
        stratum0.publisher.env = usual
        await stratum0.start_publisher()


async def test_the_publisher_between_announcement_and_publication(
    nodes: Nodes, node: Node, stratum0: Stratum0, container: str, tmp_path: Path
) -> None:
    asked, talk = tmp_path / "asked", tmp_path / "cvmfs_talk"
    talk.write_text(f"#!/bin/sh\necho >> {asked}\n")
    talk.chmod(0o755)
    # It asks the client for the newest revision whenever it waits for a layer.
    elsewhere = await nodes.start(driver_env={"GRAPHDRIVER_CVMFS_TALK": str(talk)})
    before = NodeTraces.of(node)
    script = ("--rm", "--network=none", "--entrypoint=cat", "killed:commit", "/marker")
    marker = (await node.engine.docker("exec", container, "cat", "/marker")).text

    async def commit() -> None:
        await node.engine.docker("commit", container, "killed:commit")

    async with _publisher_killed_while_it_fetches(stratum0, commit):
        layer = (await read_descriptor(node.engine, "killed:commit", tmp_path)).layers[-1].id
        # At once where it was committed, elsewhere when it is published.
        assert (await node.engine.docker("run", *script)).text == marker
        await node.engine.docker("save", "killed:commit", output=tmp_path / "image.tar")
        await elsewhere.engine.docker("load", input=tmp_path / "image.tar")
        waiting = asyncio.create_task(elsewhere.engine.docker("run", *script))
        await wait_until(lambda: asyncio.sleep(0, asked.exists()), what="the layer is waited for")
        assert not stratum0.home(layer).exists()
        assert not waiting.done()
    assert (await waiting).text == marker
    await node.engine.docker("rmi", "killed:commit")
    await NodeTraces.settle(node, before)
