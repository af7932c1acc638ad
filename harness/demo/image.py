"""The image that the demonstration starts from, as one file system tar."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.engine import Engine

__all__ = ["BaseImage", "flatten"]


@dataclass(frozen=True, kw_only=True)
class BaseImage:
    """A file system and how containers run on it."""

    rootfs: Path
    """Tar of the file system."""
    config: dict[str, Any]
    """The `config` object of the image's configuration."""


async def flatten(archive: Path, engine: Engine, directory: Path) -> BaseImage:
    """Make one layer of the image in a docker archive.

    Raises
    ------
    CommandError
        The file is no docker archive.
    """
    loaded = (await engine.docker("load", input=archive)).text.splitlines()[-1]
    image = loaded.partition(": ")[2]
    container = (await engine.docker("create", "--entrypoint=sleep", image)).text
    rootfs = directory / "image.tar"
    await engine.docker("export", container, output=rootfs)
    await engine.docker("rm", container)
    (inspected,) = json.loads((await engine.docker("image", "inspect", image)).stdout)
    return BaseImage(rootfs=rootfs, config=inspected["Config"])
