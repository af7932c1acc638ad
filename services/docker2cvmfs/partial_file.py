"""A file that is received over several calls: hidden beside its place until it is whole and verified."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Self

from services.common.durable import sync_directory
from services.docker2cvmfs.errors import OutputError

__all__ = ["PartialFile"]

_CHUNK: Final = 1 << 20
"""How much is read at once, in bytes."""


class PartialFile:
    """What has been received of a file, and its hash; reading and writing block.

    What an earlier call left is gone on with: it may be anything, and the digest of the whole decides.

    Parameters
    ----------
    file
        The hidden file, locked.
    path
        Its name.
    destination
        The name that it gets in the end.
    """

    def __init__(self, file: BinaryIO, *, path: Path, destination: Path) -> None:
        self._file = file
        self.path = path
        self._destination = destination
        self._hasher = hashlib.sha256()
        self.position = 0
        """Bytes that it has, as far as is known."""

    @classmethod
    @contextmanager
    def beside(cls, destination: Path) -> Iterator[Self]:
        """Open the hidden file of a destination, new or as it was left; in the end an empty one is removed.

        Raises
        ------
        OutputError
            Another process is writing it.
        OSError
            It cannot be opened.
        """
        path = destination.with_name(f".{destination.name}.part")
        with _locked(path) as file:
            self = cls(file, path=path, destination=destination)
            try:
                yield self
            finally:
                if self.position == 0:
                    path.unlink(missing_ok=True)

    def read(self) -> None:
        """Find out what an earlier call left."""
        while chunk := self._file.read(_CHUNK):
            self._hasher.update(chunk)
            self.position += len(chunk)

    def write(self, batch: bytes) -> None:
        """Append."""
        left = memoryview(batch)
        while left:
            left = left[self._file.write(left) :]
        self._hasher.update(batch)
        self.position += len(batch)

    def start_over(self) -> None:
        """Forget what was received."""
        self._file.seek(0)
        self._file.truncate()
        self._hasher = hashlib.sha256()
        self.position = 0

    @property
    def sha256(self) -> str:
        """SHA-256 of what it has, in hex digits."""
        return self._hasher.hexdigest()

    def finish(self) -> None:
        """Make it durable under its destination's name."""
        os.fsync(self._file.fileno())
        self.path.replace(self._destination)
        sync_directory(self._destination.parent)


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    while True:
        with os.fdopen(
            os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "r+b", buffering=0
        ) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputError(f"another process is writing {path}: wait for its end") from None
            # Between the two calls its last writer may have given it its final name.
            if path.exists() and path.samefile(f"/proc/self/fd/{file.fileno()}"):
                yield file
                return
