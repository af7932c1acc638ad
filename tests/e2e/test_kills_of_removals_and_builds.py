"""kill -9 while an image is removed or built: nothing stays but what the engine clears away, and all works again."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from harness.commands import CommandError
from harness.images import write_image
from harness.node import Node
from harness.processes import wait_until
from tests.support.e2e import BASE, Nodes
from tests.support.mounts import unmount_all_below
from tests.support.node_traces import NodeTraces, driver_home
from tests.support.tars import END, member

pytestmark = pytest.mark.asyncio(loop_scope="session")

BUILDERS = {"classic": "0", "BuildKit": "1"}
DOCKERFILE = f"""
FROM {BASE}
RUN echo first > /first
RUN touch /step && while test ! -e /go; do sleep 0.05; done && rm /step /go /etc/issue && echo second > /second
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(nodes: Nodes) -> Node:
    return await nodes.start()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An archive for `docker load`."""
    layer = tmp_path / "layer.tar"
    layer.write_bytes(member(b"marker", b"here") + END)
    write_image(tmp_path / "image.tar", name="killed:rmi", layers=[layer])
    return tmp_path / "image.tar"


async def _kill(node: Node, victims: str) -> None:
    """Kill daemons, the driver perhaps while it stands still, and start them again."""
    if "engine" in victims:
        await node.engine.kill()
    if "driver" in victims:
        await node.driver.kill()
        await node.start_driver()
    else:
        os.kill(node.driver.pid, signal.SIGCONT)
    if "engine" in victims:
        await node.engine.start()


async def _load_and_remove(node: Node, image: Path) -> None:
    await node.engine.docker("load", input=image)
    container = (await node.engine.docker("create", "--network=none", "killed:rmi", "none")).text
    assert b"here" in (await node.engine.docker("cp", f"{container}:/marker", "-")).stdout
    await node.engine.docker("rm", container)
    await node.engine.docker("rmi", "killed:rmi")


@pytest.mark.parametrize("victims", ["driver", "engine", "engine and driver"])
async def test_while_an_image_is_removed(node: Node, image: Path, victims: str) -> None:
    before = NodeTraces.of(node)
    await node.engine.docker("load", input=image)
    layers = node.engine.data_root / "image" / node.name / "layerdb/sha256"
    os.kill(node.driver.pid, signal.SIGSTOP)
    removal = asyncio.create_task(node.engine.docker("rmi", "killed:rmi"))

    async def removing() -> bool:
        return any(layers.glob("*-removing"))

    await wait_until(removing, what="the engine asks for the layer's removal")
    await _kill(node, victims)
    # Where only the driver died, the engine repeats its request, but the body is used up.
    with pytest.raises(CommandError, match="try again" if victims == "driver" else "error during connect"):
        await removal
    assert (await node.engine.docker("images", "--quiet", "killed")).text == ""
    # A layer that it could not remove the engine removes when it ends, under every storage driver.
    await node.engine.stop()
    await node.engine.start()
    await NodeTraces.settle(node, before)
    await _load_and_remove(node, image)
    await NodeTraces.settle(node, before)


@dataclass(frozen=True)
class Build:
    """A build whose second step is being run."""

    node: Node
    ends: asyncio.Task[object]
    root: Path
    """Root of the step."""

    @classmethod
    @asynccontextmanager
    async def running(cls, node: Node, directory: Path, builder: str) -> AsyncIterator["Build"]:
        """Build, and go on when the second step is being run."""
        (directory / "Dockerfile").write_text(DOCKERFILE)
        environment = {"DOCKER_BUILDKIT": BUILDERS[builder]}
        # A step whose engine was killed may still be there.
        earlier = cls._steps(node)
        build: asyncio.Task[object] = asyncio.create_task(
            node.engine.docker("build", "--network=none", "--tag=killed:build", directory, env=environment)
        )
        try:

            async def runs() -> bool:
                return build.done() or bool(cls._steps(node) - earlier)

            await wait_until(runs, what="the second step is being run")
            (root,) = cls._steps(node) - earlier
            yield cls(node, build, root)
        finally:
            build.cancel()
            await asyncio.wait([build])

    @staticmethod
    def _steps(node: Node) -> set[Path]:
        return {found.parent for found in driver_home(node).glob("layers/*/merged/step")}

    async def finish(self) -> None:
        """Let the step end, and look at what the build gives."""
        (self.root / "go").touch()
        await asyncio.wait_for(self.ends, 300)
        script = 'test "$(cat /first)" = first; test "$(cat /second)" = second; test ! -e /step; test ! -e /etc/issue'
        await self.node.engine.docker("run", "--rm", "--network=none", "killed:build", "sh", "-ec", script)
        await self.node.engine.docker("rmi", "killed:build")


async def _clear(node: Node) -> None:
    for what in ("container", "image"):
        await node.engine.docker(what, "prune", "--force")
    await node.engine.docker("builder", "prune", "--all", "--force")


@pytest.mark.parametrize("builder", BUILDERS)
async def test_the_driver_while_a_step_of_a_build_is_run(node: Node, tmp_path: Path, builder: str) -> None:
    """The step does not notice, nor does the build."""
    before = NodeTraces.of(node)
    async with Build.running(node, tmp_path, builder) as build:
        await _kill(node, "driver")
        await build.finish()
    await _clear(node)
    await NodeTraces.settle(node, before)


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("victims", ["engine", "engine and driver"])
async def test_the_engine_while_a_step_of_a_build_is_run(
    node: Node, tmp_path: Path, builder: str, victims: str
) -> None:
    before = NodeTraces.of(node)
    async with Build.running(node, tmp_path, builder) as build:
        await _kill(node, victims)
        with pytest.raises(CommandError):
            await build.ends
    async with Build.running(node, tmp_path, builder) as build:
        await build.finish()
    await _clear(node)
    # A killed engine leaves the mount that BuildKit ran the step in, under every storage driver.
    unmount_all_below(node.engine.data_root / "buildkit/executor")
    await NodeTraces.settle(node, before)
