"""Putting something in the place of something else by one step, so that a kill leaves one of them there."""

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

__all__ = ["exchange", "replace_directory"]

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2

_libc = ctypes.CDLL(None, use_errno=True)


def replace_directory(place: Path, new: Path) -> None:
    """Put a directory in the place of another one. Blocks.

    Parameters
    ----------
    place
        Where there is a directory; if it is not empty, it is where the new one was afterwards.
    new
        A directory on the same file system.

    Raises
    ------
    OSError
        The file system refuses; nothing has changed.
    """
    try:
        new.rename(place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        exchange(place, new)


def exchange(one: Path, other: Path) -> None:
    """Let each of two entries of one file system be where the other is, whatever they are. Blocks.

    Raises
    ------
    OSError
        One of them is not there, or the file system refuses; nothing has changed.
    """
    if _libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        code = ctypes.get_errno()
        raise OSError(
            code, f"cannot exchange two entries of directories: {os.strerror(code)}", str(one), None, str(other)
        )
