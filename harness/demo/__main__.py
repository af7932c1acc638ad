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
from harness.cvmfs_client import CvmfsClient, NoClientError, RepositoryServer
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
from services.publisher.settings import RepositoryKind

__all__: list[str] = []

_ROOTFS: Final = Path(__file__).parents[2] / ".cache" / "debian-trixie.tar"
_REPOSITORY: Final = RepositoryName("demo.example.org")


def _find_client() -> tuple[CvmfsClient | None, str]:
    """Find the machine's CVMFS client; return it, and what follows for the repository, in words."""
    try:
        client = CvmfsClient.find()
    except NoClientError as error:
        return None, f"the repository is a directory that the nodes see as it is, since {error}"
    return client, f"the repository is native, mounted by HTTP, since this machine has a CVMFS client: {client.program}"


async def _run(base: BaseImage | Path) -> None:
    directory = Sandbox.current().workspace
    client, choice = _find_client()
    kind = RepositoryKind.DIRECTORY if client is None else RepositoryKind.NATIVE
    stratum0 = Stratum0(directory=directory / "stratum0", repository=_REPOSITORY, kind=kind)
    server = None if client is None else RepositoryServer(stratum0.written, log=directory / "repository-server.log")

    def make_node(name: str) -> Node:
        settings = stratum0.node_settings
        if client is not None and server is not None:
            settings |= client.driver_settings(directory / f"client-{name}", url=server.url, key=stratum0.keys.public)
        return Node(name=name, directory=directory / name, cvmfs_root=stratum0.cvmfs_root, driver_env=settings)

    node_a, node_b = make_node("A"), make_node("B")
    plain = Engine(name="plain", directory=directory / "plain")
    registry = Registry(directory / "registry")
    async with AsyncExitStack() as stack:
        if server is not None:
            stack.push_async_callback(server.close)
        for close in (registry.close, stratum0.close, node_a.close, node_b.close, plain.close):
            stack.push_async_callback(close)
        circle = Circle(
            stratum0=stratum0,
            server=server,
            node_a=node_a,
            node_b=node_b,
            plain=plain,
            registry=registry,
            directory=directory,
            narrator=Narrator(),
            choice=choice,
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
