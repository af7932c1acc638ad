"""Directory trees of any depth, walked by descriptors of which few are open at a time.

Neither the length of a path, nor the number of descriptors, nor Python's own stack bounds how deep a tree is that can
be walked so: a process in a container makes trees that have no path which a system call takes.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Final, Self

__all__ = ["DIRECTORY", "Descent", "statuses"]

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a directory is opened that is not to be a link."""

_OPEN: Final = 32
"""Directories on the way to the present one that are kept open; those above are opened again by `..`."""


class Descent:
    """A place in a tree, a context manager.

    No link is ever followed, and no directory is left for another one than it was entered from, whatever somebody
    renames meanwhile.

    Parameters
    ----------
    root
        Descriptor of the directory to begin in, which this takes over.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._open = deque([os.dup(root)])
        """The innermost directories, the present one last."""
        self._levels: list[tuple[bytes, int, int]] = []
        """Name of each directory on the way here from the root, and device and inode of the one that it is in."""
        status = os.fstat(root)
        self._here = status.st_dev, status.st_ino

    @classmethod
    def into(cls, path: str | bytes | os.PathLike[str], *, dir_fd: int | None = None) -> Self:
        """Begin in a directory.

        Raises
        ------
        OSError
            It is none, or it cannot be read.
        """
        return cls(os.open(path, DIRECTORY, dir_fd=dir_fd))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._open:
            os.close(self._open.pop())
        os.close(self._root)

    @property
    def descriptor(self) -> int:
        """Descriptor of the present directory; good until it is left, or one below it is entered."""
        return self._open[-1]

    @property
    def device(self) -> int:
        """Number of the file system that the present directory is on."""
        return self._here[0]

    @property
    def depth(self) -> int:
        """How many directories the present one is below the root."""
        return len(self._levels)

    def path(self, name: bytes | None = None) -> bytes:
        """Return the path of the present directory, or of a name in it, relative to the root; empty for the root."""
        names = [level[0] for level in self._levels]
        if name is not None:
            names.append(name)
        return b"/".join(names)

    def enter(self, name: bytes) -> os.stat_result:
        """Go into a directory of the present one, and return its status.

        Raises
        ------
        OSError
            There is none of that name, or it cannot be read.
        """
        return self.enter_open(name, os.open(name, DIRECTORY, dir_fd=self.descriptor))

    def enter_open(self, name: bytes, descriptor: int) -> os.stat_result:
        """Go into a directory of the present one that is open already, and take over its descriptor."""
        status = os.fstat(descriptor)
        self._levels.append((name, *self._here))
        self._here = status.st_dev, status.st_ino
        self._open.append(descriptor)
        if len(self._open) > _OPEN:
            os.close(self._open.popleft())
        return status

    def leave(self) -> bytes:
        """Go back to the directory that the present one was entered from, and return the name of the one left.

        Raises
        ------
        OSError
            ESTALE where that is not where it was any more.
        """
        name, *above = self._levels[-1]
        if len(self._open) == 1:
            self._open.appendleft(self._reopened((above[0], above[1])))
        self._levels.pop()
        os.close(self._open.pop())
        self._here = above[0], above[1]
        return name

    def _reopened(self, wanted: tuple[int, int]) -> int:
        for find in (self._from_below, self._from_root):
            descriptor = find()
            if descriptor is not None:
                status = os.fstat(descriptor)
                if (status.st_dev, status.st_ino) == wanted:
                    return descriptor
                os.close(descriptor)
        raise OSError(errno.ESTALE, "it has been moved meanwhile")

    def _from_below(self) -> int:
        return os.open("..", DIRECTORY, dir_fd=self.descriptor)

    def _from_root(self) -> int | None:
        """Open the directory above by the names on the way to it: the present one may have been moved elsewhere."""
        descriptor = os.dup(self._root)
        for name, *_ in self._levels[:-1]:
            above = descriptor
            try:
                descriptor = os.open(name, DIRECTORY, dir_fd=above)
            except (FileNotFoundError, NotADirectoryError):
                return None
            finally:
                os.close(above)
        return descriptor


def statuses(tree: str | bytes | os.PathLike[str]) -> Generator[os.stat_result]:
    """Give the status of everything below a directory; what vanishes meanwhile is left out. Blocks.

    Raises
    ------
    OSError
        The tree cannot be read.
    """
    with Descent.into(tree) as descent:
        # For each directory on the way to the present one, those in it that have not been entered yet.
        pending: list[list[bytes]] = [[]]
        yield from _here(descent.descriptor, pending[-1])
        while True:
            if pending[-1]:
                try:
                    descent.enter(pending[-1].pop())
                except (FileNotFoundError, NotADirectoryError):
                    continue
                pending.append([])
                yield from _here(descent.descriptor, pending[-1])
            elif descent.depth:
                descent.leave()
                pending.pop()
            else:
                return


def _here(directory: int, directories: list[bytes]) -> Iterator[os.stat_result]:
    """Give the status of everything in a directory, and take note of the directories."""
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(status.st_mode):
                directories.append(os.fsencode(entry.name))
            yield status
