"""The size of a tree, as front ends count it."""

import stat
from contextlib import closing
from pathlib import Path
from typing import Final

from services.common.descent import statuses

__all__ = ["is_small", "tree_size"]

_ENTRY: Final = 1 << 10
"""What an entry without content counts, in bytes: its header in an archive, and what belongs to that."""


def is_small(tree: Path, *, most: int) -> bool:
    """Tell whether a layer's archive is made of few bytes, without a look at more than it takes to know. Blocks.

    Parameters
    ----------
    tree
        The layer's files.
    most
        Bytes of few and small files.

    Raises
    ------
    OSError
        The tree cannot be read.
    """
    total = 0
    with closing(statuses(tree)) as found:
        for status in found:
            total += _ENTRY + (status.st_size if stat.S_ISREG(status.st_mode) else 0)
            if total > most:
                return False
    return True


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
