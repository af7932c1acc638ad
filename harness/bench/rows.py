"""The rows: what a node gains or loses by the suite's front end, and what thin images cost.

Nothing is removed between runs, for the reason that `Material` gives.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.bench.material import LARGE_FILE, SMALL_FILES, Material
from harness.bench.measure import Row, Target, compare
from harness.bench.subjects import Subject, bound, within
from harness.containers import time_start
from harness.stratum0 import Stratum0

__all__ = [
    "ONE_FILE",
    "build",
    "build_rows",
    "commit",
    "commit_row",
    "load",
    "load_row",
    "start",
    "start_row",
    "visible",
]

_GIGABYTE: Final = 1_000_000_000

ONE_FILE: Final = "open('/one', 'w').write('one')"

_DOCKERFILE: Final = """\
FROM {image}
RUN mkdir -p /app/data && echo one > /app/data/one
COPY small /app/small
RUN cp /app/small /app/data/two
RUN ln /app/data/two /app/data/three && rm /app/data/one
RUN chmod -R o+rX /app && chown -R 1000:1000 /app/data
COPY large /app/large
RUN rm -r /usr/share/doc
ENV APP=/app
RUN python3 -c "import compileall; compileall.compile_dir('/usr/lib/python3', quiet=2)"
RUN find /app -type f > /app/list
"""
"""Ten steps after FROM, of the kinds that builds have."""


async def load(regular: Sequence[Subject], material: Material, runs: int) -> list[Row]:
    """Load an image of 160 MB, and one of 30,000 small files."""
    return [
        await load_row("load of 160 MB Debian", regular, material.debian, runs, limit=1.25),
        await load_row("load of 30,000 small files", regular, material.many_files, runs, limit=1.5),
    ]


async def load_row(name: str, regular: Sequence[Subject], archives: list[Path], runs: int, *, limit: float) -> Row:
    """Load docker archives, each of which is loaded once by everybody."""
    left = {subject.name: iter(archives) for subject in regular}

    async def once(subject: Subject) -> float:
        archive = next(left[subject.name])
        started = time.perf_counter()
        await subject.engine.docker("load", input=archive)
        return time.perf_counter() - started

    return await compare(name, bound(regular, once), runs=runs, targets=within(regular, limit))


async def start(subjects: Sequence[Subject], runs: int) -> list[Row]:
    """Create, start and remove a container."""
    return [await start_row("create + start + remove", subjects, runs, targets=within(subjects, 1.15))]


async def start_row(name: str, subjects: Sequence[Subject], runs: int, *, targets: tuple[Target, ...]) -> Row:
    """Create, start and remove a container of every subject."""

    async def once(subject: Subject) -> float:
        return await time_start(subject.engine, subject.image)

    # A start is short, so that more of them give a steadier median at no cost.
    return await compare(name, bound(subjects, once), runs=3 * runs, targets=targets)


@dataclass(frozen=True, kw_only=True)
class _Change:
    """What is committed."""

    what: str
    script: str
    """Makes the change, in Python; its argument is one gigabyte."""
    limit: float
    """What a regular image's commit may take in comparison."""
    turns: int = 1
    """How many times more often than other rows it is measured: short ones take more for a steady median."""


_CHANGES: Final = (
    _Change(what="one file", script=ONE_FILE, limit=1.25, turns=3),
    _Change(what="1 GB", script=LARGE_FILE, limit=1.25),
    _Change(what="30,000 small files", script=SMALL_FILES, limit=1.5),
)


async def commit(subjects: Sequence[Subject], regular: Sequence[Subject], runs: int) -> list[Row]:
    """Commit one file, one gigabyte and 30,000 small files; a thin image's commit includes its upload."""
    return [
        await commit_row(
            f"commit of {change.what}",
            subjects,
            change.turns * runs,
            script=change.script,
            targets=within(regular, change.limit),
        )
        for change in _CHANGES
    ]


async def commit_row(
    name: str, subjects: Sequence[Subject], runs: int, *, script: str, targets: tuple[Target, ...]
) -> Row:
    """Commit a container in which a script has made a change."""
    turns = itertools.count()
    containers: dict[str, str] = {}

    async def once(subject: Subject) -> float:
        container = containers[subject.name]
        # A layer that has been uploaded is not uploaded again, so each commit is made a new one.
        await subject.engine.docker("exec", container, "sh", "-c", f"echo {next(turns)} > /turn")
        started = time.perf_counter()
        image = await subject.engine.docker("commit", container)
        seconds = time.perf_counter() - started
        await subject.settled(image.text)
        return seconds

    for subject in subjects:
        containers[subject.name] = await _run_changed(subject, script)
    row = await compare(name, bound(subjects, once), runs=runs, targets=targets)
    for subject in subjects:
        await subject.engine.docker("kill", containers[subject.name])
    return row


async def _run_changed(subject: Subject, script: str) -> str:
    """Start a container, make a change in it, and return its ID."""
    command = ("run", "--detach", "--network=none", subject.image, "sleep", "infinity")
    container = (await subject.engine.docker(*command)).text
    await subject.engine.docker("exec", container, "python3", "-c", script, str(_GIGABYTE))
    return container


async def visible(thin: Subject, stratum0: Stratum0, runs: int) -> list[Row]:
    """Commit one file to a thin image and wait until the repository shows it; from the start of the commit."""
    container = await _run_changed(thin, ONE_FILE)
    turns = itertools.count()

    async def once(subject: Subject) -> float:
        await subject.engine.docker("exec", container, "sh", "-c", f"echo visible {next(turns)} > /turn")
        seen = asyncio.create_task(stratum0.next_layer())
        started = time.perf_counter()
        await subject.engine.docker("commit", container)
        await seen
        return time.perf_counter() - started

    row = await compare(
        "commit of one file to visible",
        bound([thin], once),
        runs=3 * runs,
        targets=(Target(subject=thin.name, limit=1),),
    )
    await thin.engine.docker("kill", container)
    return [row]


async def build(regular: Sequence[Subject], directory: Path, runs: int) -> list[Row]:
    """Build an image in ten steps, by BuildKit and by the classic builder."""
    return await build_rows("ten-step build", regular, directory, runs)


async def build_rows(
    name: str, regular: Sequence[Subject], directory: Path, runs: int, *, targets: tuple[Target, ...] = ()
) -> list[Row]:
    """Build an image in ten steps, by both builders; the directory gets what they build from."""
    context = directory / "context"
    context.mkdir()
    (context / "small").write_text("small\n")
    (context / "large").write_bytes(bytes(range(256)) * 40_000)

    def building(buildkit: str) -> Callable[[Subject], Awaitable[float]]:
        async def once(subject: Subject) -> float:
            (context / "Dockerfile").write_text(_DOCKERFILE.format(image=subject.image))
            arguments = ("build", "--no-cache", "--network=none", "--quiet", context)
            started = time.perf_counter()
            await subject.engine.docker(*arguments, env={"DOCKER_BUILDKIT": buildkit})
            return time.perf_counter() - started

        return once

    return [
        await compare(f"{name}, BuildKit", bound(regular, building("1")), runs=runs, targets=targets),
        await compare(f"{name}, classic", bound(regular, building("0")), runs=runs, targets=targets),
    ]
