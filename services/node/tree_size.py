"""The size of a tree, as front ends count it."""

import stat
from pathlib import Path

from services.common.descent import statuses

__all__ = ["tree_size"]


def tree_size(tree: Path) -> int:
    """Add up the sizes of what is not a directory, hard links once; what vanishes meanwhile does not count. Blocks.

    Raises
    ------
    OSError
        The tree cannot be read.
    """
    total = 0
    seen: set[tuple[int, int]] = set()
    for status in statuses(tree):
        if stat.S_ISDIR(status.st_mode):
            continue
        if status.st_nlink > 1:
            if (identity := (status.st_dev, status.st_ino)) in seen:
                continue
            seen.add(identity)
        total += status.st_size
    return total
