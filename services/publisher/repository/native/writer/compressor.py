"""Compresses objects into the one form that a repository's objects have, and names them."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final, Protocol, Self

from isal import isal_zlib

from services.publisher.repository.native.errors import BrokenRepositoryError
from services.publisher.repository.native.format import RepositoryFormat
from services.publisher.repository.native.records import ContentHash
from services.publisher.repository.native.storage.interface import Buffer

__all__ = ["Compressor", "Pieces"]

_IGZIP_LEVEL: Final = 1
_ZLIB_LEVEL: Final = 6
"""What the stock tools write; another level would give other names."""
_AT_ONCE: Final = 256 << 10
"""What is read of something long."""

_PIECE: Final = 32 << 10
"""What `Pieces` are compressed in: deflate looks no further back, so that almost nothing is lost."""
_RAW: Final = -15
"""A deflate stream with nothing around it, of the largest window."""
_HEADER: Final = b"\x78\x01"
"""Of a zlib stream with the largest window; the level that it names means nothing to who reads it."""
_LAST: Final = b"\x03\x00"
"""A deflate block that is empty and the last one."""


class _Stream(Protocol):
    """A compression of something long, as both libraries have it."""

    def compress(self, data: Buffer, /) -> bytes: ...
    def flush(self, mode: int = ..., /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Pieces:
    """Content in pieces that are compressed independently of one another."""

    plain: tuple[bytes, ...]
    """Of 32 KiB each, but for the last."""
    compressed: tuple[bytes, ...] = ()
    """Of each piece, whole bytes of deflate; nothing where only the content is known."""
    checksum: int = 1
    """Adler-32 of the content, where it has been compressed."""

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Take content apart."""
        return cls(tuple(_split(content)))

    @property
    def content(self) -> bytes:
        """The content as a whole."""
        return self.plain[0] if len(self.plain) == 1 else b"".join(self.plain)

    @property
    def stored(self) -> bytes:
        """The stored form: one zlib stream."""
        return b"".join((_HEADER, *self.compressed, _LAST, self.checksum.to_bytes(4, "big")))

    @property
    def memory(self) -> int:
        """Bytes of memory that it takes."""
        return sum(map(len, self.plain)) + sum(map(len, self.compressed))


class Compressor:
    """The compressor and the hash algorithm of one repository."""

    def __init__(self, chosen: RepositoryFormat) -> None:
        self.algorithm = chosen.algorithm
        self._compress, self._stream = (_zlib, _zlib_stream) if chosen.compressor == "zlib" else (_igzip, _igzip_stream)

    def compress(self, content: Buffer) -> bytes:
        """Return the stored form of some content."""
        return self._compress(content)

    def compress_pieces(self, content: bytes, before: Pieces) -> Pieces:
        """Compress content that is another one with a few changes: what is the same in both costs no more than a look.

        The result depends on the content alone.

        Parameters
        ----------
        content
            What is to be stored.
        before
            What it was made of.
        """
        known = zip(before.plain, before.compressed, strict=False)
        plain, compressed, checksum = [], [], 1
        for piece in _split(content):
            old = next(known, None)
            if old is None or old[0] != piece:
                old = piece, self._compress_piece(piece)
            plain.append(old[0])
            compressed.append(old[1])
            checksum = isal_zlib.adler32(piece, checksum)
        return Pieces(tuple(plain), tuple(compressed), checksum)

    def _compress_piece(self, piece: bytes) -> bytes:
        stream = self._stream(_RAW)
        return stream.compress(piece) + stream.flush(zlib.Z_SYNC_FLUSH)

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
        stream = self._stream(zlib.MAX_WBITS)
        while piece := source.read(_AT_ONCE):
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


def _zlib_stream(window: int) -> _Stream:
    return zlib.compressobj(_ZLIB_LEVEL, zlib.DEFLATED, window)


def _igzip_stream(window: int) -> _Stream:
    stream: _Stream = isal_zlib.compressobj(_IGZIP_LEVEL, isal_zlib.DEFLATED, window)
    return stream


def _split(content: bytes) -> Iterator[bytes]:
    return (content[start : start + _PIECE] for start in range(0, len(content), _PIECE))
