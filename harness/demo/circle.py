"""The steps of the demonstration."""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from harness.commands import run
from harness.containers import Container, run_container, time_start
from harness.cvmfs_client import RepositoryServer
from harness.demo.comparison import COMMITTED, CONTAINER, ELSEWHERE, PLAIN_COMMITTED, PLAIN_CONTAINER, compare
from harness.demo.image import BaseImage, flatten
from harness.demo.narrator import Narrator
from harness.demo.playground import CHANGES, write_playground
from harness.engine import Engine
from harness.images import write_image
from harness.node import Node
from harness.registry import Registry
from harness.stratum0 import Stratum0
from harness.thin_images import read_descriptor
from harness.trees import CONTAINER_EXCLUSIONS, Tree, read_directory
from services.common.object_store import ObjectStore
from services.node.reports import HARD_LINKS, HARD_LINKS_KEPT

__all__ = ["Circle"]

_REGULAR: Final = "demo:regular"
_THIN: Final = "demo:thin"
_COMMITTED: Final = "demo:committed"

_STARTS: Final = 5
"""Starts that make a median."""


class Circle:
    """One run of the demonstration, on daemons of its own.

    Parameters
    ----------
    stratum0
        Where layers are published.
    server
        Where the nodes' CVMFS clients read; none where the nodes see the repository as it is.
    node_a
        The node that changes the image and commits it.
    node_b
        The node that gets nothing but the descriptor.
    plain
        The same Docker with overlay2.
    registry
        Where the ordinary image is.
    directory
        Existing directory for archives.
    choice
        Of which kind the repository is, and why; for people.
    """

    def __init__(
        self,
        *,
        stratum0: Stratum0,
        server: RepositoryServer | None,
        node_a: Node,
        node_b: Node,
        plain: Engine,
        registry: Registry,
        directory: Path,
        narrator: Narrator,
        choice: str,
    ) -> None:
        self._stratum0 = stratum0
        self._server = server
        self._a = node_a.engine
        self._b = node_b.engine
        self._plain = plain
        self._registry = registry
        self._nodes = (node_a, node_b)
        self._directory = directory
        self._narrator = narrator
        self._choice = choice
        self._table: dict[str, str] = {}

    async def run(self, base: BaseImage | Path) -> None:
        """Go through all steps; `base` is the image, or a docker archive of it.

        Raises
        ------
        DifferenceError
            The comparison found differences.
        """
        await self._start()
        await self._publish(base)
        trees = {**await self._change_and_commit(), **await self._run_elsewhere()}
        self._narrator.step("Complete comparison of the file systems")
        compare(trees, self._narrator, links_told=await self._links_told())
        await self._close_with_table()

    async def _start(self) -> None:
        self._narrator.step("Private daemons: object store, publisher, two nodes, and a plain Docker to compare with")
        self._narrator.say(self._choice)
        with self._narrator.timed(f"SeaweedFS, and the publisher of a {self._stratum0.kind} repository"):
            await self._stratum0.start()
        if self._server is not None:
            with self._narrator.timed(f"an HTTP server of the repository, {self._server.url}"):
                await self._server.start()
        for node in self._nodes:
            with self._narrator.timed(f"node {node.name}: graphdriver, containerd, dockerd"):
                await node.start()
        with self._narrator.timed("a registry"):
            await self._registry.start()
        with self._narrator.timed("plain: containerd, dockerd with overlay2"):
            await self._plain.start()
        version = (await self._plain.docker("version", "--format={{.Server.Version}}")).text
        self._narrator.say(f"Docker {version}")

    async def _publish(self, base: BaseImage | Path) -> None:
        self._narrator.step("The image becomes published layers and a thin image")
        if isinstance(base, Path):
            with self._narrator.timed(f"the file system of {base.name}, in one piece"):
                base = await flatten(base, self._plain, self._directory)
        playground = self._directory / "playground.tar"
        write_playground(playground)
        regular = self._directory / "regular.tar"
        write_image(regular, name=_REGULAR, layers=[base.rootfs, playground], config=base.config)
        image = f"{self._registry.address}/{_REGULAR}"
        with self._narrator.timed(f"{_REGULAR}, an ordinary image, loaded on plain and pushed to the registry"):
            await self._plain.docker("load", input=regular)
            await self._plain.docker("tag", _REGULAR, image)
            await self._plain.docker("push", image)
        with self._narrator.timed(
            f"docker2cvmfs make-thin: its layers published, {_THIN} loaded on node {self._a.name}"
        ):
            converted = await run(
                *(sys.executable, "-m", "services.docker2cvmfs", "make-thin", "--insecure", image),
                *(self._stratum0.repository, "--publisher", self._stratum0.url, "--load", "--tag", _THIN),
                env={**self._stratum0.store.environment, **self._a.docker_env},
                timeout=600,
            )
        for line in converted.text.splitlines():
            self._narrator.say(f"  {line}")
        descriptor = await read_descriptor(self._a, _THIN, self._directory)
        inspected = await self._plain.docker("image", "inspect", "--format={{.Size}}", _REGULAR)
        self._table["size of the ordinary image"] = _bytes(int(inspected.text))
        self._table["size of the thin image's descriptor"] = _bytes(len(descriptor.encode()))

    async def _change_and_commit(self) -> Mapping[str, Tree]:
        self._narrator.step("Node A runs the thin image, changes it and commits")
        with self._narrator.timed(f"container of {_THIN} on node A"):
            container = await run_container(self._a, _THIN)
        with self._narrator.timed("its process:"):
            await _change(container)
        for change in CHANGES:
            self._narrator.say(f"  {change}")
        with self._narrator.timed("the same changes in a container under overlay2"):
            ordinary = await run_container(self._plain, _REGULAR)
            await _change(ordinary)
        with self._narrator.timed("both file systems read completely"):
            trees = {CONTAINER: await _read(container), PLAIN_CONTAINER: await _read(ordinary)}
        started = time.perf_counter()
        appeared = asyncio.create_task(self._stratum0.next_layer())
        await self._a.docker("commit", container.id, _COMMITTED)
        self._narrator.say("docker commit on node A: packed, compressed, uploaded", time.perf_counter() - started)
        with self._narrator.timed("node A runs the committed image at once"):
            again = await run_container(self._a, _COMMITTED)
        async with asyncio.timeout(120):
            digest = await appeared
        seconds = time.perf_counter() - started
        self._narrator.say(f"layer {digest.short} visible in the repository, counted from the commit", seconds)
        self._table["from docker commit to visible"] = f"{seconds:.2f} s"
        with self._narrator.timed("docker commit under overlay2"):
            await self._plain.docker("commit", ordinary.id, _COMMITTED)
        with self._narrator.timed("file system of the committed image read completely"):
            trees[COMMITTED] = await _read(again)
        return trees

    async def _run_elsewhere(self) -> Mapping[str, Tree]:
        self._narrator.step("Node B, which has only the descriptor, runs the committed image")
        archive = self._directory / "committed.tar"
        with self._narrator.timed("docker save on A, docker load on B"):
            await self._a.docker("save", _COMMITTED, output=archive)
            await self._b.docker("load", input=archive)
        self._narrator.say(f"the archive has {_bytes(archive.stat().st_size)}")
        with self._narrator.timed(f"container of {_COMMITTED} on node B"):
            container = await run_container(self._b, _COMMITTED)
        ordinary = await run_container(self._plain, _COMMITTED)
        with self._narrator.timed("file systems of B and of overlay2's committed image read completely"):
            return {ELSEWHERE: await _read(container), PLAIN_COMMITTED: await _read(ordinary)}

    async def _links_told(self) -> str | None:
        """Return what node A says of hard links in its containers, where they may not look like what they are."""
        if self._server is None:
            # The repository is a directory, whose files the kernel follows as it does those of regular images.
            return None
        status = dict(json.loads((await self._a.docker("info", "--format={{json .DriverStatus}}")).text))
        told = str(status[HARD_LINKS])
        return None if told == HARD_LINKS_KEPT else told

    async def _close_with_table(self) -> None:
        self._narrator.step("In figures")
        descriptor = await read_descriptor(self._a, _COMMITTED, self._directory)
        self._table["size of the committed image's descriptor"] = _bytes(len(descriptor.encode()))
        async with ObjectStore(settings=self._stratum0.store.access.settings) as store:
            stored = [await store.head(layer.id) for layer in descriptor.layers]
        sizes = [layer.size for layer in stored if layer is not None]
        self._table["uploaded for the commit"] = _bytes(sizes[-1])
        self._table["uploaded in all"] = _bytes(sum(sizes))
        for what, engine, image in (
            ("start of the thin image on B", self._b, _COMMITTED),
            ("start of the ordinary image, overlay2", self._plain, _COMMITTED),
        ):
            seconds = [await time_start(engine, image) for _ in range(_STARTS)]
            self._table[what] = f"{statistics.median(seconds) * 1000:.0f} ms"
        for what, value in self._table.items():
            self._narrator.say(f"{what:<42}{value:>12}")


def _bytes(count: int) -> str:
    """Write a size for people."""
    units = ("bytes", "kB", "MB", "GB")
    power = min((len(str(count)) - 1) // 3, len(units) - 1)
    return f"{count} bytes" if power == 0 else f"{count / 1000**power:.1f} {units[power]}"


async def _change(container: Container) -> None:
    await run(sys.executable, "-m", "harness.demo.playground", str(container.pid))


async def _read(container: Container) -> Tree:
    return await asyncio.to_thread(read_directory, container.root, exclusions=CONTAINER_EXCLUSIONS)
