"""Writes objects as files, many a second.

A temporary file is written in `data/txn` and renamed to its place, over whatever is there: the content follows from the
name, so either it is the same already, or a power failure has cut it short and it becomes whole again. Directories stay
open, since a path costs the kernel more than a name. Not safe for several threads.
"""

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from services.repository.native.records import TRANSACTION_DIRECTORY
from services.repository.native.storage.interface import Buffer

__all__ = ["ObjectFiles"]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE: Final = 0o644


class ObjectFiles:
    """A context manager that writes into the object store below a directory.

    Parameters
    ----------
    root
        The directory that holds `data`, which exists with all that is in it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: dict[str, int] = {}
        self._prefix = os.urandom(8).hex()
        self._count = 0

    def __enter__(self) -> Self:
        self._transactions = os.open(self._root / TRANSACTION_DIRECTORY, _DIRECTORY)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        os.close(self._transactions)

    def write(self, path: str, content: Buffer) -> None:
        """Write an object to its path, relative to the root.

        Raises
        ------
        OSError
            It could not be written; what was there is as it was.
        """
        directory, _, name = path.rpartition("/")
        place = self._open.get(directory)
        if place is None:
            place = self._open[directory] = os.open(self._root / directory, _DIRECTORY)
        self._count += 1
        temporary = f"{self._prefix}-{self._count}"
        descriptor = os.open(temporary, _NEW, _MODE, dir_fd=self._transactions)
        try:
            try:
                written = os.write(descriptor, content)
                while written < len(content):
                    written += os.write(descriptor, memoryview(content)[written:])
            finally:
                os.close(descriptor)
            os.rename(temporary, name, src_dir_fd=self._transactions, dst_dir_fd=place)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self._transactions)
            raise

    def holds(self, path: str) -> bool:
        """Tell whether an object is there."""
        directory, _, name = path.rpartition("/")
        place = self._open.get(directory)
        if place is None:
            place = self._open[directory] = os.open(self._root / directory, _DIRECTORY)
        try:
            os.stat(name, dir_fd=place)
        except FileNotFoundError:
            return False
        return True
