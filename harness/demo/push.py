"""A push to a registry becomes visible by itself: its webhook, the converter, the publisher, and a thin image."""

import asyncio
import time
from typing import Final

from harness.containers import run_container
from harness.converter import Converter
from harness.demo.comparison import DifferenceError
from harness.demo.narrator import Narrator
from harness.engine import Engine
from harness.http import answers
from harness.processes import wait_until
from harness.registry import Registry
from harness.stratum0 import Stratum0

__all__ = ["Push"]

_IMAGE: Final = "demo/pushed"
_THIN: Final = "demo/pushed-thin"
_FILE: Final = "pushed"
_PATIENCE: Final = 900
"""Most seconds for what takes seconds on a machine that has nothing else to do."""


class Push:
    """One image that somebody pushes.

    Parameters
    ----------
    plain
        Where it is made, of an image that is there, and pushed from.
    node
        A worker node, where its thin image runs.
    registry, converter, stratum0
        What it goes through.
    """

    def __init__(
        self,
        *,
        plain: Engine,
        node: Engine,
        registry: Registry,
        converter: Converter,
        stratum0: Stratum0,
        narrator: Narrator,
    ) -> None:
        self._plain = plain
        self._node = node
        self._registry = registry
        self._converter = converter
        self._stratum0 = stratum0
        self._narrator = narrator

    async def start_converter(self) -> None:
        """Start the converter, which is to keep an image up to date that nobody has pushed yet."""
        await self._converter.start(
            f"version: 2\nimages:\n  - image: {self._registry.address}/{_IMAGE}:latest\n"
            f"    repositories: {self._stratum0.repository}\n    thin: {self._registry.address}/{_THIN}:latest\n"
        )

    async def run(self, image: str) -> float:
        """Push an image made of another one, and run what the converter makes of it.

        Parameters
        ----------
        image
            The other one, which `plain` has, and the registry as well.

        Returns
        -------
        float
            Seconds from the begin of the push until the repository shows it.

        Raises
        ------
        DifferenceError
            The container does not have what was pushed.
        """
        name, thin = f"{self._registry.address}/{_IMAGE}:latest", f"{self._registry.address}/{_THIN}:latest"
        with self._narrator.timed(f"{name}, of a changed container on plain"):
            container = await run_container(self._plain, image)
            (container.root / _FILE).write_text(name)
            await self._plain.docker("commit", container.id, name, timeout=_PATIENCE)
            await self._plain.docker("rm", "--force", container.id)
        started = time.perf_counter()
        appeared = asyncio.create_task(self._stratum0.next_layer())
        await self._plain.docker("push", name, timeout=_PATIENCE)
        self._narrator.say("docker push", time.perf_counter() - started)
        async with asyncio.timeout(_PATIENCE):
            digest = await appeared
        seconds = time.perf_counter() - started
        self._narrator.say(f"layer {digest.short} visible in the repository, counted from its begin", seconds)
        with self._narrator.timed(f"{thin}, a thin image, pushed by the converter"):
            tags = f"http://{self._registry.address}/v2/{_THIN}/tags/list"
            await wait_until(lambda: answers(tags), timeout=_PATIENCE, what=f"{thin} is pushed")
        with self._narrator.timed("the node pulls and runs it"):
            await self._node.docker("pull", "--quiet", thin, timeout=_PATIENCE)
            container = await run_container(self._node, thin)
        found = (container.root / _FILE).read_text()
        if found != name:
            raise DifferenceError(f"the container of {thin} has {found!r} where {name!r} was pushed")
        await self._node.docker("rm", "--force", container.id)
        return seconds
