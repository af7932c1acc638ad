"""`make demo`: run a thin image, commit it, run the result elsewhere, and compare everything."""

import argparse
import asyncio
import signal
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from harness.commands import CommandError
from harness.demo.circle import Circle
from harness.demo.comparison import DifferenceError
from harness.demo.image import BaseImage
from harness.demo.narrator import Narrator
from harness.engine import Engine
from harness.node import Node
from harness.processes import DaemonError
from harness.registry import Registry
from harness.sandbox import Sandbox
from harness.stratum0 import Stratum0
from services.common.repository_name import RepositoryName

__all__: list[str] = []

_ROOTFS: Final = Path(__file__).parents[2] / ".cache" / "debian-trixie.tar"
_REPOSITORY: Final = RepositoryName("demo.example.org")


async def _run(base: BaseImage | Path) -> None:
    directory = Sandbox.current().workspace
    stratum0 = Stratum0(directory=directory / "stratum0", repository=_REPOSITORY)
    nodes = [
        Node(name=name, directory=directory / name, cvmfs_root=stratum0.cvmfs_root, driver_env=stratum0.node_settings)
        for name in ("A", "B")
    ]
    plain = Engine(name="plain", directory=directory / "plain")
    registry = Registry(directory / "registry")
    async with AsyncExitStack() as stack:
        for close in (registry.close, stratum0.close, nodes[0].close, nodes[1].close, plain.close):
            stack.push_async_callback(close)
        circle = Circle(
            stratum0=stratum0,
            node_a=nodes[0],
            node_b=nodes[1],
            plain=plain,
            registry=registry,
            directory=directory,
            narrator=Narrator(),
        )
        await circle.run(base)


def main() -> int:
    """Parse the arguments and run; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m harness.demo", description=__doc__)
    parser.add_argument("--image", type=Path, help="docker archive to start from instead of Debian")
    image: Path | None = parser.parse_args().image
    started = time.perf_counter()
    try:
        asyncio.run(_run(image or BaseImage(rootfs=_ROOTFS, config={"Cmd": ["bash"]})))
    except KeyboardInterrupt:
        print("\nInterrupted; nothing is left of it.", flush=True)
        return 128 + signal.SIGINT
    except (DifferenceError, CommandError, DaemonError, TimeoutError) as error:
        print(f"\nFAILED after {time.perf_counter() - started:.0f} s: {error}", flush=True)
        return 1
    print(f"\nDone in {time.perf_counter() - started:.0f} s; nothing is left of it.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
