"""What a snapshot's own files take on the disk, counted as containerd does."""

import contextlib
import os
from pathlib import Path
from typing import Final

from services.snapshotter.store.model import Usage

__all__ = ["measure"]

_BLOCK: Final = 512
"""Bytes in a block of stat(2)."""


def measure(tree: Path) -> Usage:
    """Add up a directory and everything below it, hard links once; what vanishes meanwhile does not count. Blocks."""
    seen: set[tuple[int, int]] = set()
    size = 0
    with contextlib.suppress(FileNotFoundError):
        size += _count(os.stat(tree), seen)
    for _, directories, files, descriptor in os.fwalk(os.fsencode(tree)):
        for name in (*directories, *files):
            with contextlib.suppress(FileNotFoundError):
                size += _count(os.stat(name, dir_fd=descriptor, follow_symlinks=False), seen)
    return Usage(size, len(seen))


def _count(status: os.stat_result, seen: set[tuple[int, int]]) -> int:
    identity = (status.st_dev, status.st_ino)
    if identity in seen:
        return 0
    seen.add(identity)
    return status.st_blocks * _BLOCK
