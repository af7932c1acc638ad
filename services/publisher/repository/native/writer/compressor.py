"""Compresses objects into the one form that a repository's objects have, and names them."""

import zlib
from typing import IO, Final, Protocol

from isal import isal_zlib

from services.publisher.repository.native.errors import BrokenRepositoryError
from services.publisher.repository.native.format import RepositoryFormat
from services.publisher.repository.native.records import ContentHash
from services.publisher.repository.native.storage.interface import Buffer

__all__ = ["Compressor"]

_IGZIP_LEVEL: Final = 1
_ZLIB_LEVEL: Final = 6
"""What the stock tools write; another level would give other names."""
_PIECE: Final = 256 << 10


class _Stream(Protocol):
    """A compression of something long, as both libraries have it."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Compressor:
    """The compressor and the hash algorithm of one repository."""

    def __init__(self, chosen: RepositoryFormat) -> None:
        self.algorithm = chosen.algorithm
        self._compress, self._stream = (_zlib, _zlib_stream) if chosen.compressor == "zlib" else (_igzip, _igzip_stream)

    def compress(self, content: Buffer) -> bytes:
        """Return the stored form of some content."""
        return self._compress(content)

    def compress_stream(self, source: IO[bytes], sink: IO[bytes]) -> ContentHash:
        """Compress what is too large for memory, and return the object's name; the stored form is `compress`'s or not.

        Parameters
        ----------
        source
            The content, read to its end.
        sink
            Gets the stored form.
        """
        hasher = self.algorithm.hasher()
        stream = self._stream()
        while piece := source.read(_PIECE):
            stored = stream.compress(piece)
            hasher.update(stored)
            sink.write(stored)
        stored = stream.flush()
        hasher.update(stored)
        sink.write(stored)
        return ContentHash(self.algorithm.finish(hasher), self.algorithm)

    def name(self, stored: Buffer) -> ContentHash:
        """Return the name of an object with these stored bytes."""
        return ContentHash.of(stored, self.algorithm)

    def expand(self, stored: bytes) -> bytes:
        """Return the content of an object that fits memory.

        Raises
        ------
        BrokenRepositoryError
            The stored bytes are no zlib stream.
        """
        try:
            return zlib.decompress(stored)
        except zlib.error as error:
            raise BrokenRepositoryError(f"an object is damaged: {error}") from error


def _zlib(content: Buffer) -> bytes:
    return zlib.compress(content, _ZLIB_LEVEL)


def _igzip(content: Buffer) -> bytes:
    return isal_zlib.compress(content, _IGZIP_LEVEL)


def _zlib_stream() -> _Stream:
    return zlib.compressobj(_ZLIB_LEVEL)


def _igzip_stream() -> _Stream:
    stream: _Stream = isal_zlib.compressobj(_IGZIP_LEVEL)
    return stream
