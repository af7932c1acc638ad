"""`make demo`: run a thin image, commit it, run the result elsewhere, and compare everything, under both front ends."""

import argparse
import asyncio
import signal
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from harness.commands import CommandError
from harness.containerd_node import ContainerdNode
from harness.converter import Converter
from harness.cvmfs_client import CvmfsClient, NoClientError, RepositoryServer
from harness.demo.circle import Circle, Mounted
from harness.demo.comparison import DifferenceError
from harness.demo.image import BaseImage
from harness.demo.narrator import Narrator
from harness.demo.push import Push
from harness.engine import Engine
from harness.node import Node
from harness.processes import DaemonError
from harness.registry import Registry
from harness.sandbox import Sandbox
from harness.stratum0 import Stratum0
from services.common.repository_name import RepositoryName
from services.node.errors import RepositoryError
from services.publisher.settings import RepositoryKind

__all__: list[str] = []

_ROOTFS: Final = Path(__file__).parents[2] / ".cache" / "debian-trixie.tar"
_REPOSITORY: Final = RepositoryName("demo.example.org")
_PATIENCE: Final = 300
"""Seconds that a container's start waits for layers, on a machine that may be busy."""


def _find_client() -> tuple[CvmfsClient | None, str]:
    """Find the machine's CVMFS client; return it, and what follows for the repository, in words."""
    try:
        client = CvmfsClient.find()
    except NoClientError as error:
        return None, f"the repository is a directory that the nodes see as it is, since {error}"
    return client, f"the repository is native, mounted by HTTP, since this machine has a CVMFS client: {client.program}"


async def _run(base: BaseImage | Path, *, large: int) -> None:
    directory = Sandbox.current().workspace
    client, choice = _find_client()
    kind = RepositoryKind.DIRECTORY if client is None else RepositoryKind.NATIVE
    registry = Registry(directory / "registry")
    stratum0 = Stratum0(
        directory=directory / "stratum0",
        repository=_REPOSITORY,
        kind=kind,
        publisher_settings={"REGISTRY_PLAIN_HTTP": registry.address},
    )
    server = None if client is None else RepositoryServer(stratum0.written, log=directory / "repository-server.log")

    driver_settings, mounted = stratum0.node_settings, None
    if client is not None and server is not None:
        key = stratum0.keys.public
        driver_settings |= client.driver_settings(directory / "client-A", url=server.url, key=key)
        configured = client.configured(directory / "client-B", url=server.url, key=key)
        mounted = Mounted(configured, directory / "client-B" / "cvmfs")
    node_a = Node(
        name="A",
        directory=directory / "A",
        cvmfs_root=stratum0.cvmfs_root,
        driver_env={**driver_settings, "GRAPHDRIVER_PUBLISH_WAIT": str(_PATIENCE)},
    )
    node_b = ContainerdNode(
        name="B",
        directory=directory / "B",
        cvmfs_root=stratum0.cvmfs_root if mounted is None else mounted.root,
        snapshotter_env={**stratum0.containerd_node_settings, "SNAPSHOTTER_PUBLISH_WAIT": str(_PATIENCE)},
    )
    plain = Engine(name="plain", directory=directory / "plain")
    converter = Converter(directory=directory / "converter", stratum0=stratum0, registry=registry)
    narrator = Narrator()
    push = Push(
        plain=plain,
        node=node_a.engine,
        registry=registry,
        converter=converter,
        stratum0=stratum0,
        narrator=narrator,
    )
    async with AsyncExitStack() as stack:
        if server is not None:
            stack.push_async_callback(server.close)
        for close in (registry.close, stratum0.close, converter.close, node_a.close, node_b.close, plain.close):
            stack.push_async_callback(close)
        circle = Circle(
            stratum0=stratum0,
            server=server,
            node_a=node_a,
            node_b=node_b,
            mounted=mounted,
            plain=plain,
            registry=registry,
            push=push,
            directory=directory,
            large=large,
            narrator=narrator,
            choice=choice,
        )
        await circle.run(base)


def main() -> int:
    """Parse the arguments and run; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m harness.demo", description=__doc__)
    parser.add_argument("--image", type=Path, help="docker archive to start from instead of Debian")
    parser.add_argument("--large", type=int, default=300, help="size of the largest file that is written, in MB (300)")
    arguments = parser.parse_args()
    image: Path | None = arguments.image
    base = image or BaseImage(rootfs=_ROOTFS, config={"Cmd": ["bash"]})
    started = time.perf_counter()
    try:
        asyncio.run(_run(base, large=arguments.large * 1_000_000))
    except KeyboardInterrupt:
        print("\nInterrupted; nothing is left of it.", flush=True)
        return 128 + signal.SIGINT
    except (DifferenceError, CommandError, DaemonError, RepositoryError, TimeoutError) as error:
        print(f"\nFAILED after {time.perf_counter() - started:.0f} s: {error}", flush=True)
        return 1
    print(f"\nDone in {time.perf_counter() - started:.0f} s; nothing is left of it.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
