"""A file that is written and hashed in one go, under a hidden name until it is whole."""

import hashlib
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from services.common.durable import sync_directory

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["HashedFile"]

_CHUNK: Final = 1 << 20
"""How much is read at once, in bytes."""


class HashedFile(FileIO):
    """A file, what has been received of it, and its hash. Its methods block; aiofiles can wrap it as any file.

    Parameters
    ----------
    path
        Its hidden name, beside its place.
    mode, opener
        As of `open`.
    """

    def __init__(self, path: Path, mode: str, opener: Callable[[str, int], int] | None = None) -> None:
        super().__init__(str(path), mode, opener=opener)
        self.path = path
        self.size = 0
        """Bytes that have been received."""
        self._hasher = hashlib.sha256()

    @property
    def digest(self) -> str:
        """SHA-256 of what has been received, in hex digits."""
        return self._hasher.hexdigest()

    def take_over(self) -> None:
        """Take what is in the file for received."""
        while chunk := self.read(_CHUNK):
            self._hasher.update(chunk)
            self.size += len(chunk)

    def write(self, chunk: "ReadableBuffer", /) -> int:
        """Append and hash all of it, in one thread; so `writelines` does as well.

        Raises
        ------
        OSError
            Not everything could be written; the error names the file.
        """
        whole = left = memoryview(chunk)
        while left:
            left = left[self._write_some(left) :]
        self._hasher.update(whole)
        self.size += len(whole)
        return len(whole)

    def start_over(self) -> None:
        """Forget what was received."""
        self.seek(0)
        self.truncate()
        self._hasher = hashlib.sha256()
        self.size = 0

    def publish(self, destination: Path) -> None:
        """Make it durable under its final name."""
        os.fsync(self.fileno())
        self.path.replace(destination)
        sync_directory(destination.parent)

    def _write_some(self, view: memoryview) -> int:
        try:
            return os.write(self.fileno(), view)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
