"""The size of a tree, as front ends count it."""

import contextlib
import os
import stat
from pathlib import Path

__all__ = ["tree_size"]


def tree_size(tree: Path) -> int:
    """Add up the sizes of what is not a directory, hard links once; what vanishes meanwhile does not count."""
    total = 0
    seen: set[tuple[int, int]] = set()
    pending = [os.fsencode(tree)]
    while pending:
        with contextlib.suppress(FileNotFoundError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    pending.append(entry.path)
                    continue
                if status.st_nlink > 1:
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                total += status.st_size
    return total
