"""A file system of its own for measurements, on a file of the machine's."""

import shutil
from pathlib import Path
from typing import Final

from harness.commands import run

__all__ = ["mount_disk"]

_SHARE: Final = 0.8
"""How much of the free space the file system may grow to; its file is sparse."""

_LIMIT: Final = 100 << 30
"""Largest size in bytes; no measurement needs more."""


async def mount_disk(file: Path, directory: Path) -> None:
    """Make an empty ext4 and mount it: what was measured before, or anybody else's files, have no part in its layout.

    The mount goes with the sandbox, and the loop device with the mount.

    Raises
    ------
    CommandError
        The machine has no loop devices, or no ext4.
    """
    directory.mkdir()
    size = min(_LIMIT, int(shutil.disk_usage(file.parent).free * _SHARE))
    with file.open("wb") as handle:
        handle.truncate(size)
    # Initialised as it is used, and not in the background, where it would disturb a measurement.
    await run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", file)
    await run("mount", "-o", "loop,noinit_itable", file, directory)
