"""The circle under one front end: change and commit on one node, run on another one, compare everything."""

import asyncio
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.commands import run
from harness.containers import Container, run_container, time_start
from harness.demo.comparison import COMMITTED, CONTAINER, ELSEWHERE, PLAIN_COMMITTED, PLAIN_CONTAINER, compare
from harness.demo.narrator import Narrator
from harness.demo.playground import changes
from harness.engine import Engine
from harness.stratum0 import Stratum0
from harness.thin_images import read_descriptor
from harness.trees import CONTAINER_EXCLUSIONS, Tree, read_directory
from services.common.object_store.store import ObjectStore

__all__ = ["Figures", "Images", "Place", "Turn", "size_text"]

_STARTS: Final = 3
"""Starts that make a median."""
_PATIENCE: Final = 900
"""Most seconds for what takes seconds on a machine that has nothing else to do."""

Figures = dict[str, str]
"""What was measured, by what it is."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A worker node."""

    name: str
    front_end: str
    """What serves thin images there, for people."""
    engine: Engine
    hidden_links: str | None = None
    """Why two names of one file may look like two files in its thin containers; None where they do not."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Names of one image in both forms."""

    regular: str
    thin: str


class Turn:
    """One time round.

    Parameters
    ----------
    here
        Where the thin image is changed and committed.
    there
        Where the result runs.
    plain
        The same Docker with overlay2.
    stratum0
        Where layers are published.
    images
        What is changed; `here` has the thin one, `plain` the regular one.
    directory
        Existing directory for archives.
    large
        Size of the largest file that is written, in bytes.
    """

    def __init__(
        self,
        *,
        here: Place,
        there: Place,
        plain: Engine,
        stratum0: Stratum0,
        images: Images,
        directory: Path,
        large: int,
        narrator: Narrator,
    ) -> None:
        self._here = here
        self._there = there
        self._plain = plain
        self._stratum0 = stratum0
        self._images = images
        self._directory = directory
        self._large = large
        self._narrator = narrator
        self._committed = f"demo:committed-on-{here.name.lower()}"

    async def run(self) -> Figures:
        """Go round, and return what was measured.

        Raises
        ------
        DifferenceError
            The comparison found differences.
        """
        figures: Figures = {}
        trees = {**await self._change_and_commit(figures), **await self._run_elsewhere()}
        self._narrator.step("Complete comparison of the file systems")
        compare(trees, self._narrator, links_told=self._here.hidden_links)
        await self._measure(figures)
        return figures

    async def _change_and_commit(self, figures: Figures) -> Mapping[str, Tree]:
        here, thin = self._here, self._images.thin
        self._narrator.step(f"Under the {here.front_end}: node {here.name} runs the thin image, changes it and commits")
        with self._narrator.timed(f"container of {thin} on node {here.name}"):
            container = await run_container(here.engine, thin)
        with self._narrator.timed("its process:"):
            await self._change(container)
        for change in changes(note="", large=self._large):
            self._narrator.say(f"  {change}")
        with self._narrator.timed("the same changes in a container under overlay2"):
            ordinary = await run_container(self._plain, self._images.regular)
            await self._change(ordinary)
        with self._narrator.timed("both file systems read completely"):
            trees = {CONTAINER: await _read(container), PLAIN_CONTAINER: await _read(ordinary)}
        started = time.perf_counter()
        appeared = asyncio.create_task(self._stratum0.next_layer())
        await here.engine.docker("commit", container.id, self._committed, timeout=_PATIENCE)
        said = f"docker commit on node {here.name}: packed, compressed, uploaded"
        self._narrator.say(said, time.perf_counter() - started)
        with self._narrator.timed(f"node {here.name} runs the committed image at once"):
            again = await run_container(here.engine, self._committed)
        async with asyncio.timeout(_PATIENCE):
            digest = await appeared
        seconds = time.perf_counter() - started
        self._narrator.say(f"layer {digest.short} visible in the repository, counted from the commit", seconds)
        figures["from docker commit to visible"] = f"{seconds:.2f} s"
        with self._narrator.timed("docker commit under overlay2"):
            await self._plain.docker("commit", ordinary.id, self._committed, timeout=_PATIENCE)
        with self._narrator.timed("file system of the committed image read completely"):
            trees[COMMITTED] = await _read(again)
        return trees

    async def _run_elsewhere(self) -> Mapping[str, Tree]:
        here, there = self._here, self._there
        self._narrator.step(
            f"Under the {there.front_end}: node {there.name}, which has only the descriptor, runs the committed image"
        )
        archive = self._directory / "committed.tar"
        with self._narrator.timed(f"docker save on {here.name}, docker load on {there.name}"):
            await here.engine.docker("save", self._committed, output=archive)
            await there.engine.docker("load", input=archive)
        self._narrator.say(f"the archive has {size_text(archive.stat().st_size)}")
        with self._narrator.timed(f"container of {self._committed} on node {there.name}"):
            container = await run_container(there.engine, self._committed)
        ordinary = await run_container(self._plain, self._committed)
        with self._narrator.timed(f"file systems of {there.name} and of overlay2's committed image read completely"):
            return {ELSEWHERE: await _read(container), PLAIN_COMMITTED: await _read(ordinary)}

    async def _measure(self, figures: Figures) -> None:
        descriptor = await read_descriptor(self._here.engine, self._committed, self._directory)
        figures["size of the committed image's descriptor"] = size_text(len(descriptor.encode()))
        async with ObjectStore(settings=self._stratum0.store.access.settings) as store:
            stored = await store.head(descriptor.layers[-1].id)
        figures["uploaded for the commit"] = size_text(stored.size if stored is not None else 0)
        for what, engine in (
            (f"start of the thin image on {self._there.name}", self._there.engine),
            ("start of the ordinary image, overlay2", self._plain),
        ):
            seconds = [await time_start(engine, self._committed) for _ in range(_STARTS)]
            figures[what] = f"{statistics.median(seconds) * 1000:.0f} ms"

    async def _change(self, container: Container) -> None:
        # What is committed under one front end is no layer yet when it is committed under the other.
        note = f"of the {self._here.front_end}"
        arguments = (str(container.pid), note, str(self._large))
        await run(sys.executable, "-m", "harness.demo.playground", *arguments, timeout=_PATIENCE)


def size_text(count: int) -> str:
    """Write a size for people."""
    units = ("bytes", "kB", "MB", "GB")
    power = min((len(str(count)) - 1) // 3, len(units) - 1)
    return f"{count} bytes" if power == 0 else f"{count / 1000**power:.1f} {units[power]}"


async def _read(container: Container) -> Tree:
    return await asyncio.to_thread(read_directory, container.root, exclusions=CONTAINER_EXCLUSIONS)
