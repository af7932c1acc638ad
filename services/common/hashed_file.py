"""A file that is written and hashed in one go, under a hidden name until it is whole."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

from services.common.durable import sync_directory

__all__ = ["HashedFile"]

_CHUNK: Final = 1 << 20
"""How much is read at once, in bytes."""


class HashedFile:
    """What has been received of a file, and its hash. Reading and writing block.

    Parameters
    ----------
    file
        The file, unbuffered, at its beginning; its owner closes it.
    path
        Its hidden name, beside its place.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.path = path
        self.size = 0
        """Bytes that have been received."""
        self._file = file
        self._hasher = hashlib.sha256()

    @property
    def digest(self) -> str:
        """SHA-256 of what has been received, in hex digits."""
        return self._hasher.hexdigest()

    def read(self) -> None:
        """Take what is in the file for received."""
        while chunk := self._file.read(_CHUNK):
            self._hasher.update(chunk)
            self.size += len(chunk)

    def write(self, chunks: Iterable[bytes]) -> None:
        """Append.

        Raises
        ------
        OSError
            Not everything could be written; the error names the file.
        """
        for chunk in chunks:
            left = memoryview(chunk)
            while left:
                left = left[self._write_some(left) :]
            self._hasher.update(chunk)
            self.size += len(chunk)

    def start_over(self) -> None:
        """Forget what was received."""
        self._file.seek(0)
        self._file.truncate()
        self._hasher = hashlib.sha256()
        self.size = 0

    def publish(self, destination: Path) -> None:
        """Make it durable under its final name."""
        os.fsync(self._file.fileno())
        self.path.replace(destination)
        sync_directory(destination.parent)

    def _write_some(self, view: memoryview) -> int:
        try:
            return os.write(self._file.fileno(), view)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
