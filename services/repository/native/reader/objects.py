"""Objects: hashed as they are stored, decompressed within bounds, whatever their size.

An object's name is the hash of its stored bytes. That is known at its end only, so whoever takes pieces of content must
read to the end before believing in them; both of the functions here fail there, or before.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Final

from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.reader.source import Source, pieces_of
from services.repository.native.records import (
    Compression,
    ContentHash,
    ObjectKind,
)

__all__ = ["read_object", "read_sized_object", "read_small_object"]

_PIECE: Final = 256 << 10
"""Most bytes that are decompressed at a time."""
_GROWTH: Final = 100
"""What cannot be compressed grows by less than a hundredth of it,"""
_FRAME: Final = 4096
"""and by fewer bytes than this."""


def read_object(
    source: Source,
    name: ContentHash,
    kind: ObjectKind,
    *,
    limit: int,
    compression: Compression = Compression.ZLIB,
) -> Iterator[bytes]:
    """Read an object's content in pieces.

    Parameters
    ----------
    source
        Where the repository is.
    name, kind
        Which object.
    limit
        Most bytes that the content may have; more are not decompressed.
    compression
        How it is stored.

    Raises
    ------
    ObjectMissingError, StorageError
        As `Source.open`.
    BrokenRepositoryError
        At the end at the latest: the stored bytes are not those of the name, are no complete zlib stream, hold more
        than the limit, or are more than content within it can need.
    """
    path = name.path(kind)
    hasher = name.algorithm.hasher()
    # A server that lies may send without end.
    too_large = BrokenRepositoryError(f"{path} holds more than {limit} bytes")
    stored = _at_most(limit + limit // _GROWTH + _FRAME, _hashed(source, path, hasher.update), too_large)
    try:
        yield from _at_most(limit, stored if compression is Compression.NONE else _inflate(stored, path), too_large)
    except BrokenRepositoryError:
        # Bytes that have changed are the cause, whatever they lead to.
        for _ in stored:
            pass
        _compare(name.algorithm.finish(hasher), name, path)
        raise
    _compare(name.algorithm.finish(hasher), name, path)


def read_small_object(source: Source, name: ContentHash, kind: ObjectKind, *, limit: int) -> bytes:
    """Read a compressed object whole; otherwise as `read_object`."""
    return b"".join(read_object(source, name, kind, limit=limit))


def read_sized_object(
    source: Source, name: ContentHash, kind: ObjectKind, *, size: int, compression: Compression
) -> Iterator[bytes]:
    """Read an object whose content has a known size, in bytes; otherwise as `read_object`.

    Raises
    ------
    BrokenRepositoryError
        Also if it has less than that.
    """
    found = 0
    for piece in read_object(source, name, kind, limit=size, compression=compression):
        found += len(piece)
        yield piece
    if found != size:
        raise BrokenRepositoryError(f"{name.path(kind)} holds {found} bytes instead of {size}")


def _compare(found: bytes, name: ContentHash, path: str) -> None:
    if found != name.digest:
        raise BrokenRepositoryError(f"{path} has been changed: its bytes have the hash {found.hex()}")


def _at_most(limit: int, pieces: Iterator[bytes], too_large: BrokenRepositoryError) -> Iterator[bytes]:
    found = 0
    for piece in pieces:
        found += len(piece)
        if found > limit:
            raise too_large
        yield piece


def _hashed(source: Source, path: str, update: Callable[[bytes], None]) -> Iterator[bytes]:
    for piece in pieces_of(source, path):
        update(piece)
        yield piece


def _inflate(stored: Iterator[bytes], path: str) -> Iterator[bytes]:
    """Decompress exactly one zlib stream, never more than a piece at a time."""
    stream = zlib.decompressobj()
    for piece in stored:
        if stream.eof:
            raise BrokenRepositoryError(f"{path} goes on after the end of its zlib stream")
        data = piece
        while data and not stream.eof:
            if content := _decompress(stream, data, path):
                yield content
            data = stream.unconsumed_tail
        if stream.unused_data:
            raise BrokenRepositoryError(f"{path} goes on after the end of its zlib stream")
    while not stream.eof:
        # All is read; what is left is output that a piece had no room for.
        content = _decompress(stream, b"", path)
        if not content and not stream.eof:
            raise BrokenRepositoryError(f"{path} ends within its zlib stream")
        yield content


def _decompress(stream: "zlib._Decompress", data: bytes, path: str) -> bytes:
    try:
        return stream.decompress(data, _PIECE)
    except zlib.error as error:
        raise BrokenRepositoryError(f"{path} is no zlib stream: {error}") from None
