"""Bringing files to the disk, so that what is said to be published survives a power failure."""

import ctypes
import errno
import os
import stat
from pathlib import Path
from typing import Final

__all__ = ["replace_file", "sync_directory", "sync_file_system", "sync_tree", "write_file"]

_FEW: Final = 64
"""Up to this many files each is brought to the disk by itself; beyond, the whole file system at once is quicker."""

_libc = ctypes.CDLL(None, use_errno=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a new file that everybody may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def replace_file(path: Path, content: bytes) -> None:
    """Give a file a new content, all at once and so that it survives a loss of power; only its owner may read it."""
    temporary = path.with_name(f"{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    os.rename(temporary, path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Bring a directory's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path, *, entries: int) -> None:
    """Bring a directory and everything below it to the disk.

    Parameters
    ----------
    root
        The directory.
    entries
        About how many files there are below it.
    """
    if entries > _FEW:
        sync_file_system(root)
        return
    for _, _, files, descriptor in os.fwalk(root):
        for name in files:
            if stat.S_ISREG(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                _sync_file(name, descriptor)
        os.fsync(descriptor)


def _sync_file(name: str, directory: int) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(path: Path) -> None:
    """Bring everything of the file system that holds a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while _libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            if code != errno.EINTR:
                raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(descriptor)
