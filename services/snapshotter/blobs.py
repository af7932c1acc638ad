"""Layers as containerd's content store has them: a tar, as it is or compressed with gzip."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Final, Protocol

from isal import isal_zlib

from services.common.archive.tarwriter import Sink
from services.common.digest import Digest

__all__ = ["DEFAULT_MEDIA_TYPE", "MEDIA_TYPES", "Blob", "write_blob"]

DEFAULT_MEDIA_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
"""What dockerd takes any layer for that it has asked for without a type."""
_COMPRESSED: Final = {
    DEFAULT_MEDIA_TYPE: True,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": True,
    "application/vnd.oci.image.layer.v1.tar": False,
    "application/vnd.docker.image.rootfs.diff.tar": False,
}
MEDIA_TYPES: Final = frozenset(_COMPRESSED)
"""Types of layers that can be made."""

_GZIP_WINDOW: Final = 31
"""For zlib: the largest window, with the header of gzip, which then holds neither a name nor a time."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer, and what is known of it."""

    media_type: str
    digest: Digest
    size: int
    """In bytes, as it is stored."""
    diff_id: Digest


def write_blob(file: IO[bytes], media_type: str, write: Callable[[Sink], object]) -> Blob:
    """Write a layer into a file. Blocks.

    Parameters
    ----------
    file
        Where it goes; takes all it is given.
    media_type
        One of `MEDIA_TYPES`.
    write
        Writes the tar into the sink that it is given; the same one for the same layer.

    Raises
    ------
    OSError
        The file cannot be written.
    Exception
        What `write` raises.
    """
    sink = _Sink(file, isal_zlib.compressobj(wbits=_GZIP_WINDOW) if _COMPRESSED[media_type] else None)
    write(sink)
    return sink.finish(media_type)


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Sink:
    """Writes a stream, compressed or not, and knows the digests of both forms."""

    def __init__(self, file: IO[bytes], compressor: _Compressor | None) -> None:
        self._file = file
        self._compressor = compressor
        self._plain = hashlib.sha256()
        self._stored = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes, /) -> None:
        self._plain.update(data)
        self._store(data if self._compressor is None else self._compressor.compress(data))

    def finish(self, media_type: str) -> Blob:
        if self._compressor is not None:
            self._store(self._compressor.flush())
        self._file.flush()
        digest, diff_id = (Digest(hash_.hexdigest()) for hash_ in (self._stored, self._plain))
        return Blob(media_type, digest, self._size, diff_id)

    def _store(self, data: bytes) -> None:
        self._stored.update(data)
        self._size += len(data)
        self._file.write(data)
