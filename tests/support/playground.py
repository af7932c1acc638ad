"""The images of these tests, and what is looked at in their containers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.containers import Container, run_container
from harness.engine import Engine
from harness.trees import CONTAINER_EXCLUSIONS, Tree, read_directory
from services.common.descriptor import ThinLayer

__all__ = ["IMAGE", "METRICS", "THIN_IMAGE", "Playground", "read_image", "run_script", "tree"]

IMAGE: Final = "test:playground"
"""A regular image of two layers."""
THIN_IMAGE: Final = "test:thin-playground"
"""The same file system as a thin image."""
METRICS: Final = Path("/run/containerd-metrics.sock")
"""Socket of the node's metrics."""


@dataclass(frozen=True)
class Playground:
    """An image of two layers in both forms."""

    archive: Path
    """The regular one."""
    layer: Path
    """Its upper layer."""
    thin: ThinLayer
    """The same in the repository."""


def tree(container: Container) -> Tree:
    """Read the whole file system of a container."""
    return read_directory(container.root, exclusions=CONTAINER_EXCLUSIONS)


async def read_image(engine: Engine, image: str) -> Tree:
    """Read the whole file system of a new container."""
    container = await run_container(engine, image)
    try:
        return tree(container)
    finally:
        await engine.docker("rm", "--force", container.id)


async def run_script(engine: Engine, image: str, script: str) -> str:
    """Run a shell script in a new container; return what it writes."""
    options = ("--rm", "--network=none", "--entrypoint=sh")
    return (await engine.docker("run", *options, image, "-c", script)).text
