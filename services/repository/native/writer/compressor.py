"""Compresses objects into the one form that a repository's objects have, and names them."""

import zlib
from dataclasses import dataclass
from typing import IO, Final, NamedTuple, Protocol

from isal import isal_zlib

from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.format import RepositoryFormat
from services.repository.native.records import ContentHash
from services.repository.native.storage.interface import Buffer

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
_ADLER_BASE: Final = 65521
_LAST: Final = b"\x03\x00"
"""A deflate block that is empty and the last one."""


class _Stream(Protocol):
    """A compression of something long, as both libraries have it."""

    def compress(self, data: Buffer, /) -> bytes: ...
    def flush(self, mode: int = ..., /) -> bytes: ...


class _Piece(NamedTuple):
    """A part of some content."""

    plain: bytes
    compressed: bytes
    """Whole bytes of deflate."""
    checksum: int
    """Adler-32 of what is plain."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """Content, and what it is compressed to: in pieces of 32 KiB, the last one shorter, independent of one another."""

    whole: bytes = b""
    """The content where it has not been compressed in pieces."""
    pieces: tuple[_Piece, ...] = ()

    @property
    def content(self) -> bytes:
        """The content."""
        return self.whole or b"".join(piece.plain for piece in self.pieces)

    @property
    def stored(self) -> bytes:
        """The stored form: one zlib stream."""
        checksum = 1
        for piece in self.pieces:
            checksum = _joined(checksum, piece.checksum, len(piece.plain))
        compressed = (piece.compressed for piece in self.pieces)
        return b"".join((_HEADER, *compressed, _LAST, checksum.to_bytes(4, "big")))

    @property
    def memory(self) -> int:
        """Bytes of memory that it takes."""
        return len(self.whole) + sum(len(piece.plain) + len(piece.compressed) for piece in self.pieces)


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
        known = iter(before.pieces)
        pieces = []
        for start in range(0, len(content), _PIECE):
            size = min(_PIECE, len(content) - start)
            piece = next(known, None)
            if piece is None or len(piece.plain) != size or not content.startswith(piece.plain, start):
                piece = self._piece(content[start : start + size])
            pieces.append(piece)
        return Pieces(pieces=tuple(pieces))

    def _piece(self, plain: bytes) -> _Piece:
        stream = self._stream(_RAW)
        return _Piece(plain, stream.compress(plain) + stream.flush(zlib.Z_SYNC_FLUSH), isal_zlib.adler32(plain))

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


def _joined(first: int, second: int, size: int) -> int:
    """Return the Adler-32 of two parts, from those of each, and from the size of the second (RFC 1950, section 9)."""
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + size * ((first & 0xFFFF) - 1)
    return high % _ADLER_BASE << 16 | low % _ADLER_BASE
