"""Generated entries in a tree on disk, whatever the tree has in their places."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.common.deletion import delete_tree
from services.common.descent import DIRECTORY, Descent
from services.repository.flat.differences import Difference, Differences
from services.repository.flat.entries import GeneratedEntry, GeneratedKind

__all__ = ["add_generated"]

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NANOSECONDS: Final = 10**9


def add_generated(root: Path, entries: Sequence[GeneratedEntry], differences: Differences) -> None:
    """Put generated entries into a tree; the directories that they are put into keep their times. Blocks.

    Parameters
    ----------
    root
        Root of the tree, which nobody else changes.
    entries
        Each after its parent.
    differences
        Gets the paths of those that are left out, since what is above their place is no directory.

    Raises
    ------
    OSError
        The file system refused.
    """
    for entry in entries:
        *parents, name = entry.path.split(b"/")
        with Descent.into(root) as place:
            try:
                for parent in parents:
                    place.enter(parent)
            except (NotADirectoryError, FileNotFoundError):
                differences.add(Difference.NOT_GENERATED, entry.path)
                continue
            status = os.fstat(place.descriptor)
            _put(entry, name, place.descriptor)
            os.utime(place.descriptor, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _put(entry: GeneratedEntry, name: bytes, parent: int) -> None:
    try:
        there = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        pass
    else:
        if entry.only_if_missing:
            return
        if not stat.S_ISDIR(there.st_mode):
            os.unlink(name, dir_fd=parent)
        elif entry.kind is GeneratedKind.DIRECTORY:
            return
        else:
            delete_tree(name, dir_fd=parent)
    if entry.kind is GeneratedKind.SYMLINK:
        os.symlink(entry.data, name, dir_fd=parent)
        os.chown(name, 0, 0, dir_fd=parent, follow_symlinks=False)
    else:
        if entry.kind is GeneratedKind.DIRECTORY:
            os.mkdir(name, 0o700, dir_fd=parent)
            descriptor = os.open(name, DIRECTORY, dir_fd=parent)
        else:
            descriptor = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            _fill(descriptor, entry)
        finally:
            os.close(descriptor)
    time = entry.mtime * _NANOSECONDS
    os.utime(name, ns=(time, time), dir_fd=parent, follow_symlinks=False)


def _fill(descriptor: int, entry: GeneratedEntry) -> None:
    rest = memoryview(entry.data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fchown(descriptor, 0, 0)
    os.fchmod(descriptor, entry.mode)
