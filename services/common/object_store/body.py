"""Bodies of requests, their SHA-256 known beforehand: parts of a file, or bytes in memory."""

import hashlib
import io
import os
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol

__all__ = ["Body", "FilePart", "MemoryPart", "PartReader", "hash_part"]

_CHUNK: Final = 1 << 20
"""How much of a file is read at once for hashing, in bytes."""


class Body(Protocol):
    """What a request sends, again if need be."""

    @property
    def size(self) -> int:
        """Number of bytes."""

    @property
    def checksum(self) -> str:
        """The SHA-256 as `x-amz-checksum-sha256` has it."""

    def reader(self) -> "PartReader":
        """Open the bytes for one request."""


def _checksum(sha256: str) -> str:
    return b64encode(bytes.fromhex(sha256)).decode()


@dataclass(frozen=True, slots=True)
class FilePart:
    """Some bytes of an open file, and what they are."""

    file: BinaryIO
    """The file, unbuffered."""
    offset: int
    """Where the part starts, in bytes."""
    size: int
    """Size of the part, in bytes."""
    sha256: str
    """SHA-256 of the part, in hex digits."""

    @property
    def checksum(self) -> str:
        """The SHA-256 as `x-amz-checksum-sha256` has it."""
        return _checksum(self.sha256)

    def reader(self) -> "PartReader":
        """Open the part for one request; the file's own position stays, so that parts can be read side by side."""
        return PartReader(self._read, size=self.size, sha256=self.sha256)

    def _read(self, size: int, position: int) -> bytes:
        data = os.pread(self.file.fileno(), size, self.offset + position)
        if size and not data:
            raise OSError(f"{self.file.name} became shorter while it was uploaded")
        return data


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """Bytes that came from elsewhere, and what they are."""

    content: bytes | bytearray
    """The bytes, which do not change."""
    sha256: str
    """Their SHA-256, in hex digits."""

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self.content)

    @property
    def checksum(self) -> str:
        """The SHA-256 as `x-amz-checksum-sha256` has it."""
        return _checksum(self.sha256)

    def reader(self) -> "PartReader":
        """Open the bytes for one request."""
        return PartReader(self._read, size=self.size, sha256=self.sha256)

    def _read(self, size: int, position: int) -> bytes:
        return bytes(memoryview(self.content)[position : position + size])


class PartReader(io.RawIOBase):
    """Reads a body for one request.

    Parameters
    ----------
    source
        Returns at most so many bytes from a position.
    size
        Size of the body, in bytes.
    sha256
        SHA-256 of the body, in hex digits.
    """

    def __init__(self, source: Callable[[int, int], bytes], *, size: int, sha256: str) -> None:
        self.sha256 = sha256
        self.failure: OSError | None = None
        self._source = source
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Reading is what it is for."""
        return True

    def seekable(self) -> bool:
        """A client finds out the size by seeking."""
        return True

    def tell(self) -> int:
        """Position in the part, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move within the part."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = min(max(base + offset, 0), self._size)
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes.

        Raises
        ------
        OSError
            The file cannot be read or has become shorter; it is kept as `failure`, since clients take every error
            that occurs while they send for a failure of the network.
        """
        left = self._size - self._position
        wanted = left if size is None or size < 0 else min(size, left)
        try:
            data = self._source(wanted, self._position)
        except OSError as error:
            self.failure = error
            raise
        self._position += len(data)
        return data


def hash_part(file: BinaryIO, offset: int, size: int, *, tee: Callable[[memoryview], object]) -> FilePart:
    """Hash a part of a file (blocking).

    Parameters
    ----------
    file
        The file, unbuffered.
    offset, size
        Where the part is, in bytes.
    tee
        Gets the part's bytes as well, so that the hash of the whole file needs no reading of its own.

    Raises
    ------
    OSError
        The file cannot be read, or is shorter.
    """
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(min(_CHUNK, size)))
    position, end = offset, offset + size
    while position < end:
        got = os.preadv(file.fileno(), [buffer[: end - position]], position)
        if not got:
            raise OSError(f"{file.name} became shorter while it was uploaded")
        hasher.update(buffer[:got])
        tee(buffer[:got])
        position += got
    return FilePart(file, offset, size, hasher.hexdigest())
