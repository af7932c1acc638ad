"""`make bench`: run the rows, print the table, write bench.json."""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.bench import containerd, memory, rows
from harness.bench.bucket import bucket
from harness.bench.calls import calls
from harness.bench.containerd_rig import open_containerd_rig
from harness.bench.conversion import conversion
from harness.bench.convert import convert
from harness.bench.cri import cri
from harness.bench.databases import databases
from harness.bench.events import events
from harness.bench.flat import flat
from harness.bench.measure import Row
from harness.bench.native import native
from harness.bench.podman import podman
from harness.bench.publishers import publishers
from harness.bench.queued import queued
from harness.bench.report import closing_note, table, write_json
from harness.bench.rig import open_rig
from harness.bench.round import rounds
from harness.bench.takeover import takeover
from harness.commands import run
from harness.disk import mount_disk
from harness.sandbox import Sandbox

__all__: list[str] = []

_ROOT: Final = Path(__file__).parents[2]
_ROOTFS: Final = _ROOT / ".cache" / "debian-trixie.tar"
_CONTAINERD_ROWS: Final = tuple(
    f"containerd-{name}" for name in ("memory", "start", "many", "load", "pull", "commit", "build")
)
_DOCKER_ROWS: Final = (
    "memory",
    "load",
    "start",
    "commit",
    "build",
    "visible",
    "conversion",
    "native",
    "bucket",
    "queued",
    "calls",
    "cri",
)
_CONVERTER_ROWS: Final = ("convert", "round")
_REPOSITORY_ROWS: Final = ("flat", "podman", "publishers", "databases", "events", "takeover")
_ROWS: Final = (*_DOCKER_ROWS, *_CONTAINERD_ROWS, *_CONVERTER_ROWS, *_REPOSITORY_ROWS)

_Work = Callable[[], Awaitable[list[Row]]]


def _only(text: str) -> list[str]:
    chosen = text.split(",")
    if unknown := set(chosen) - set(_ROWS):
        raise argparse.ArgumentTypeError(f"no such row: {', '.join(sorted(unknown))} (there are {', '.join(_ROWS)})")
    return chosen


async def _run(only: Sequence[str], runs: int, megabytes: int) -> None:
    workspace = Sandbox.current().workspace
    directory = workspace / "disk"
    await mount_disk(workspace / "disk.img", directory)
    # A database server runs as another user, and its files are on that disk.
    workspace.chmod(0o711)
    result: list[Row] = []
    if not set(only).isdisjoint(_DOCKER_ROWS):
        result += await _docker_rows(directory / "docker", only, runs)
    if not set(only).isdisjoint(_CONTAINERD_ROWS):
        result += await _containerd_rows(directory / "containerd", only, runs)
    if not set(only).isdisjoint(_CONVERTER_ROWS):
        result += await _converter_rows(directory / "converter", only, runs, megabytes)
    if not set(only).isdisjoint(_REPOSITORY_ROWS):
        work: dict[str, _Work] = {
            "flat": lambda: flat(directory / "flat", runs),
            "podman": lambda: podman(directory / "podman", 3 * runs),
            "publishers": lambda: publishers(directory / "publishers", runs),
            "databases": lambda: databases(directory / "databases", runs),
            "events": lambda: events(directory / "events", runs),
            "takeover": lambda: takeover(directory / "takeover", runs),
        }
        result += await _measure(work, only)
    # "Docker version 26.1.5+dfsg1, build 411e817"
    docker = (await run("dockerd", "--version")).text.split()[2].rstrip(",")
    print(f"\nDocker {docker}\n\n{table(result)}\n\n{closing_note(result)}")
    write_json(result, docker=docker, destination=_ROOT / "bench.json")


async def _docker_rows(directory: Path, only: Sequence[str], runs: int) -> list[Row]:
    directory.mkdir()
    async with open_rig(directory, rootfs=_ROOTFS, variants=runs + 1) as rig:
        work: dict[str, _Work] = {
            # First, since a peak is one of all that was done before.
            "memory": lambda: memory.large_layer(rig),
            "load": lambda: rows.load(rig.regular, rig.material, runs),
            "start": lambda: rows.start([*rig.regular, rig.thin], runs),
            "commit": lambda: rows.commit([*rig.regular, rig.thin], rig.regular, runs),
            "build": lambda: rows.build(rig.regular, directory, runs),
            "visible": lambda: rows.visible(rig.thin, rig.stratum0, runs),
            "conversion": lambda: conversion(directory / "conversion", rig.stratum0, runs),
            "native": lambda: native(directory / "native", runs, rootfs=_ROOTFS),
            "bucket": lambda: bucket(directory / "bucket"),
            "queued": lambda: queued(directory / "queued", rig.stratum0, runs),
            "calls": lambda: calls(directory / "calls", 3 * runs),
            "cri": lambda: cri(directory / "cri", rig.stratum0, runs),
        }
        measured = await _measure(work, only)
        return [*measured, memory.peaks(rig, "peak memory, the whole run", None)]


async def _containerd_rows(directory: Path, only: Sequence[str], runs: int) -> list[Row]:
    async with open_containerd_rig(directory, rootfs=_ROOTFS) as rig:
        work: dict[str, _Work] = {
            # First, before anything else has used memory.
            "containerd-memory": lambda: containerd.memory(rig),
            "containerd-start": lambda: containerd.start(rig, runs),
            "containerd-many": lambda: containerd.many(rig, runs),
            "containerd-load": lambda: containerd.load(rig, runs),
            "containerd-pull": lambda: containerd.pull(rig, runs),
            "containerd-commit": lambda: containerd.commit(rig, runs),
            "containerd-build": lambda: containerd.build(rig, runs),
        }
        return await _measure(work, only)


async def _converter_rows(directory: Path, only: Sequence[str], runs: int, megabytes: int) -> list[Row]:
    directory.mkdir()
    work: dict[str, _Work] = {
        "convert": lambda: convert(directory / "convert", runs, rootfs=_ROOTFS, megabytes=megabytes),
        "round": lambda: rounds(directory / "round", runs),
    }
    return await _measure(work, only)


async def _measure(work: Mapping[str, _Work], only: Sequence[str]) -> list[Row]:
    result: list[Row] = []
    for name, row in work.items():
        if name in only:
            started = time.perf_counter()
            measured = await row()
            # At once, so that a row that fails later takes no result along.
            print(f"{name}: {time.perf_counter() - started:.0f} s\n{table(measured)}\n", flush=True)
            result += measured
    return result


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m harness.bench", description=__doc__)
    parser.add_argument("--only", type=_only, default=_ROWS, help=f"rows, by commas: {', '.join(_ROWS)}")
    parser.add_argument("--runs", type=int, default=5, help="figures that make a median")
    parser.add_argument("--megabytes", type=int, default=1200, help="size of the image of `convert`")
    arguments = parser.parse_args()
    asyncio.run(_run(arguments.only, arguments.runs, arguments.megabytes))


if __name__ == "__main__":
    main()
