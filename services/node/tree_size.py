"""The size of a tree, as front ends count it."""

import os
import stat
from pathlib import Path

from services.common.descent import Descent

__all__ = ["tree_size"]


def tree_size(tree: Path) -> int:
    """Add up the sizes of what is not a directory, hard links once; what vanishes meanwhile does not count. Blocks.

    Raises
    ------
    OSError
        The tree cannot be read.
    """
    sum_ = _Sum()
    with Descent.into(tree) as descent:
        # For each directory on the way to the present one, those in it that have not been entered yet.
        pending = [sum_.add(descent.descriptor)]
        while True:
            if pending[-1]:
                try:
                    descent.enter(pending[-1].pop())
                except (FileNotFoundError, NotADirectoryError):
                    continue
                pending.append(sum_.add(descent.descriptor))
            elif descent.depth:
                descent.leave()
                pending.pop()
            else:
                return sum_.total


class _Sum:
    def __init__(self) -> None:
        self.total = 0
        self._seen: set[tuple[int, int]] = set()

    def add(self, directory: int) -> list[bytes]:
        """Add what is in a directory, and return the names of the directories in it."""
        names = []
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    names.append(os.fsencode(entry.name))
                elif self._is_new(status):
                    self.total += status.st_size
        return names

    def _is_new(self, status: os.stat_result) -> bool:
        if status.st_nlink == 1:
            return True
        known = len(self._seen)
        self._seen.add((status.st_dev, status.st_ino))
        return len(self._seen) > known
