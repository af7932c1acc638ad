"""A large image as Kubernetes pulls it, its layers published: for pods that use the snapshotter, and for others."""

import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from harness.bench.large_image import large_image
from harness.bench.measure import Row, Target, compare
from harness.commands import run
from harness.cri.client import CriClient
from harness.cri.node import CriNode
from harness.processes import wait_until
from harness.stratum0 import Stratum0

__all__ = ["cri"]

_THEIRS: Final = "overlayfs"
_OURS: Final = "suite, published"
_SECONDS: Final = 2
_SHARE: Final = 0.01
"""Of the image's bytes, what may be transferred."""


async def cri(directory: Path, stratum0: Stratum0, runs: int) -> list[Row]:
    """Pull it, and count what is transferred."""
    directory.mkdir()
    async with large_image(directory) as image:
        await run(
            *(sys.executable, "-m", "services.docker2cvmfs", "publish", "--insecure"),
            *("--publisher", stratum0.url, image, stratum0.repository),
            env=stratum0.store.environment,
            timeout=600,
        )
        settings = {**stratum0.containerd_node_settings, "SNAPSHOTTER_CVMFS_ROOT": str(stratum0.cvmfs_root)}
        node = CriNode(name="kubernetes", directory=directory / "node", pause=image, snapshotter_env=settings)
        try:
            await node.start()
            return await _rows(node, image, runs)
        finally:
            await node.close()


async def _rows(node: CriNode, image: str, runs: int) -> list[Row]:
    clients = {_THEIRS: node.others, _OURS: node.client}
    kilobytes: dict[str, list[float]] = {name: [] for name in clients}

    async def nothing_left() -> bool:
        return node.downloaded() == 0

    def pulling(name: str, client: CriClient) -> Callable[[], Awaitable[float]]:
        async def once() -> float:
            started = time.perf_counter()
            identity = await client.pull(image)
            seconds = time.perf_counter() - started
            kilobytes[name].append(node.downloaded() / 1e3)
            await client.remove_image(identity)
            await wait_until(nothing_left, what="nothing is left of the image")
            return seconds

        return once

    return [
        await compare(
            "pull of 1.2 GB by CRI",
            {name: pulling(name, client) for name, client in clients.items()},
            runs=runs,
            targets=(Target(subject=_OURS, limit=_SECONDS),),
        ),
        Row(
            name="transferred by that pull",
            unit="kB",
            samples=kilobytes,
            targets=(Target(subject=_OURS, over=_THEIRS, limit=_SHARE),),
        ),
    ]
