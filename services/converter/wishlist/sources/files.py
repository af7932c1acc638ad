"""Wish lists in files; everything here blocks, for a moment."""

import os
import stat
from pathlib import Path
from typing import Final

from services.converter.errors import SourceUnreachableError
from services.converter.wishlist.tree import SIZE_LIMIT

__all__ = ["list_files", "read_file"]

_SUFFIXES: Final = (".yaml", ".yml")
_FILES: Final = 1000
"""Most lists in a directory."""


def list_files(path: Path) -> tuple[Path, ...] | None:
    """Return the lists in a directory, by name; None where the path is no directory.

    Raises
    ------
    SourceUnreachableError
        It cannot be looked into, or holds no list at all, as when something is not mounted.
    """
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return None
        names = sorted(name for name in os.listdir(path) if name.endswith(_SUFFIXES) and not name.startswith("."))
    except OSError as error:
        raise SourceUnreachableError(f"cannot read {path}: {error.strerror}") from None
    for name in names:
        if not name.isprintable():
            raise SourceUnreachableError(f"the name of a wish list in {path} cannot be shown: rename {name!r}")
    if not names:
        raise SourceUnreachableError(
            f"no wish list (*.yaml) in the directory {path}: if none is meant to be there, take it out of the settings"
        )
    if len(names) > _FILES:
        raise SourceUnreachableError(f"{len(names)} wish lists in {path}: at most {_FILES} are read, join some")
    return tuple(path / name for name in names)


def read_file(path: Path, *, limit: int = SIZE_LIMIT) -> bytes:
    """Return the content of a file, or one byte more than the limit.

    Raises
    ------
    SourceUnreachableError
        It cannot be read, or is no regular file.
    """
    try:
        # A pipe without a writer would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SourceUnreachableError(f"{path} is no file: a wish list is one")
            return file.read(limit + 1)
    except OSError as error:
        raise SourceUnreachableError(f"cannot read {path}: {error.strerror}") from None
