"""What the file system of the scratch area holds, found out by trying outside any transaction."""

import errno
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final, Self

from services.repository.errors import RepositoryError

__all__ = ["Scratch"]

_SECOND: Final = 1_000_000_000
_FAR: Final = (1 << 40) * _SECOND
"""A time that no file system holds, in nanoseconds from the epoch; what it holds is nearer."""
_ENTRY: Final = 16
"""Bytes that file systems take for an attribute besides its name and value (ext4)."""
_SURELY: Final = 512
"""Bytes of attributes that every file system has room for: ext4 with blocks of 1 KiB has the least."""
_TOO_MUCH: Final = (errno.ENOSPC, errno.E2BIG, errno.ERANGE)


class Scratch:
    """A file without a name on the file system of the scratch area, on which things are tried.

    Parameters
    ----------
    directory
        A directory of the file system in which nothing is published.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: IO[bytes]

    def __enter__(self) -> Self:
        """Make the file, and find out which times it can have.

        Raises
        ------
        RepositoryError
            The file system failed.
        """
        try:
            self._file = tempfile.TemporaryFile(dir=self._directory)
            self.earliest = self._time(-_FAR)
            self.latest = self._time(_FAR)
        except OSError as error:
            raise self._failed(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _time(self, wanted: int) -> int:
        os.utime(self._file.fileno(), ns=(wanted, wanted))
        return os.fstat(self._file.fileno()).st_mtime_ns

    def holds(self, xattrs: Mapping[bytes, bytes]) -> bool:
        """Tell whether one file can have all of these attributes.

        Raises
        ------
        RepositoryError
            The file system failed, or is full.
        """
        if sum(len(name) + len(value) + _ENTRY for name, value in xattrs.items()) <= _SURELY:
            return True
        try:
            return self._try(xattrs)
        except OSError as error:
            raise self._failed(error) from error

    def _try(self, xattrs: Mapping[bytes, bytes]) -> bool:
        descriptor = self._file.fileno()
        try:
            for name, value in xattrs.items():
                os.setxattr(descriptor, name, value)
        except OSError as error:
            if error.errno in _TOO_MUCH:
                self._make_sure_of_room()
                return False
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # to which unpacking has answers of its own
                raise
        finally:
            for held in os.listxattr(descriptor):
                os.removexattr(descriptor, held)
        return True

    def _make_sure_of_room(self) -> None:
        """Write a little, which fails if not the one file is full but the file system."""
        descriptor = self._file.fileno()
        os.pwrite(descriptor, bytes(1 << 16), 0)
        os.fsync(descriptor)
        os.ftruncate(descriptor, 0)

    def _failed(self, error: OSError) -> RepositoryError:
        return RepositoryError(f"nothing can be tried in {self._directory}: {error.strerror}")
