"""`make bench`: run the rows, print the table, write bench.json."""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from harness.bench import memory, rows
from harness.bench.bucket import bucket
from harness.bench.calls import calls
from harness.bench.conversion import conversion
from harness.bench.measure import Row
from harness.bench.native import native
from harness.bench.report import closing_note, table, write_json
from harness.bench.rig import open_rig
from harness.disk import mount_disk
from harness.sandbox import Sandbox

__all__: list[str] = []

_ROOT: Final = Path(__file__).parents[2]
_ROOTFS: Final = _ROOT / ".cache" / "debian-trixie.tar"
_ROWS: Final = ("memory", "load", "start", "commit", "build", "visible", "conversion", "native", "bucket", "calls")

_Work = Callable[[], Awaitable[list[Row]]]


def _only(text: str) -> list[str]:
    chosen = text.split(",")
    if unknown := set(chosen) - set(_ROWS):
        raise argparse.ArgumentTypeError(f"no such row: {', '.join(sorted(unknown))} (there are {', '.join(_ROWS)})")
    return chosen


async def _run(only: Sequence[str], runs: int) -> None:
    workspace = Sandbox.current().workspace
    directory = workspace / "disk"
    await mount_disk(workspace / "disk.img", directory)
    result: list[Row] = []
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
            "calls": lambda: calls(directory / "calls", 3 * runs),
        }
        for name, row in work.items():
            if name in only:
                started = time.perf_counter()
                measured = await row()
                # At once, so that a row that fails later takes no result along.
                print(f"{name}: {time.perf_counter() - started:.0f} s\n{table(measured)}\n", flush=True)
                result += measured
        result.append(memory.peaks(rig, "peak memory, the whole run", None))
        docker = (await rig.plain.docker("version", "--format={{.Server.Version}}")).text
    print(f"\nDocker {docker}\n\n{table(result)}\n\n{closing_note(result)}")
    write_json(result, docker=docker, destination=_ROOT / "bench.json")


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m harness.bench", description=__doc__)
    parser.add_argument("--only", type=_only, default=_ROWS, help=f"rows, by commas: {', '.join(_ROWS)}")
    parser.add_argument("--runs", type=int, default=5, help="figures that make a median")
    arguments = parser.parse_args()
    asyncio.run(_run(arguments.only, arguments.runs))


if __name__ == "__main__":
    main()
