"""The stored form of a layer archive: compressed, with the digests of both streams.

Written as zstd, level 3; read as gzip, zstd or plain tar, as images have them.
"""

import hashlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import IO, Final, Protocol

from backports.zstd import CompressionParameter, DecompressionParameter, ZstdCompressor, ZstdDecompressor, ZstdError
from isal import igzip_lib
from isal.isal_zlib import IsalError

from services.common.archive.errors import (
    ArchiveLimitError,
    ArchiveReadError,
    ArchiveWriteError,
    CompressionError,
)
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import ArchiveIdentity, LayerArchive, MediaType
from services.common.archive.pack import pack
from services.common.archive.stream import Source
from services.common.cores import usable_cores
from services.common.digest import Digest
from services.common.durable import sync_directory

__all__ = ["ArchiveReader", "open_archive", "write_archive", "writing_memory"]

_LEVEL: Final = 3
_JOB_SIZE: Final = 1 << 20
"""Piece that one thread compresses at a time, in bytes: the same output for any number of threads, little memory."""

# isal's stub has its exception as an instance.
_CORRUPT: Final[tuple[type[Exception], ...]] = (ZstdError, IsalError)  # type: ignore[assignment]

_TOO_MUCH_MEMORY: Final = "too much memory"
"""How libzstd words an error that has no class of its own."""

_MAX_WORKERS: Final = 8
"""More threads would wait for the hash of the uncompressed stream, and each costs some 4 MiB."""

_WRITING: Final = 8 << 20
"""What writing an archive takes besides what its threads do, in bytes."""
_WORKER: Final = 4 << 20
"""What each of the threads takes, in bytes."""

_PIECE: Final = 256 << 10
_MAGIC_SIZE: Final = 6
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = tuple(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16))
_UNSUPPORTED: Final = {b"\xfd7zXZ\0": "xz", b"BZh": "bzip2", b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip"}


def writing_memory() -> int:
    """Return how many bytes of memory `write_archive` holds at most, whatever the tree's size."""
    return _WRITING + _WORKER * _workers()


def _workers() -> int:
    return min(_MAX_WORKERS, usable_cores())


def write_archive(
    tree: Path, destination: Path, *, exclude: Collection[bytes] = (), limits: ArchiveLimits | None = None
) -> LayerArchive:
    """Pack an overlay upper directory into a compressed layer archive; blocking, on all cores.

    Parameters
    ----------
    tree
        The upper directory.
    destination
        The file to make; it appears under this name only when it is whole and on disk.
    exclude
        As in `pack`.
    limits
        As in `pack`; they hold for the sizes of both streams, too.

    Raises
    ------
    ArchiveError
        As `pack` does, or the destination cannot be written. No file is left then.
    """
    partial = destination.with_name(f"{destination.name}.partial")
    # One that is left of a killed attempt is overwritten.
    try:
        with partial.open("wb", buffering=0) as file:
            sink = _CompressingSink(file, limits)
            pack(tree, sink, exclude=exclude, limits=limits)
            identity = sink.finish()
            os.fsync(file.fileno())
        partial.replace(destination)
        sync_directory(destination.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ArchiveWriteError(f"{destination} cannot be written: {error.strerror}") from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return LayerArchive(
        path=destination,
        digest=identity.digest,
        diff_id=identity.diff_id,
        size=identity.size,
        uncompressed_size=identity.uncompressed_size,
        media_type=identity.media_type,
    )


class _CompressingSink:
    """Compresses a stream into a file and knows both digests."""

    def __init__(self, file: IO[bytes], limits: ArchiveLimits | None) -> None:
        self._file = file
        self._limits = limits
        self._compressor = ZstdCompressor(
            options={
                CompressionParameter.compression_level: _LEVEL,
                CompressionParameter.checksum_flag: 1,
                CompressionParameter.nb_workers: _workers(),
                CompressionParameter.job_size: _JOB_SIZE,
            }
        )
        self._plain = hashlib.sha256()
        self._stored = hashlib.sha256()
        self._plain_size = 0
        self._stored_size = 0

    def write(self, data: bytes) -> None:
        self._plain.update(data)
        self._plain_size += len(data)
        if self._limits is not None:
            self._limits.check_stream_size(self._plain_size)
        self._store(self._compressor.compress(data))

    def finish(self) -> ArchiveIdentity:
        self._store(self._compressor.flush())
        if self._limits is not None:
            # A publisher would refuse it only when the container may be gone.
            self._limits.check_ratio(self._plain_size, self._stored_size)
        return ArchiveIdentity(
            digest=Digest(self._stored.hexdigest()),
            diff_id=Digest(self._plain.hexdigest()),
            size=self._stored_size,
            uncompressed_size=self._plain_size,
            media_type=MediaType.TAR_ZSTD,
        )

    def _store(self, data: bytes) -> None:
        if not data:
            return
        self._stored.update(data)
        self._stored_size += len(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]


def open_archive(source: Source, *, limits: ArchiveLimits) -> "ArchiveReader":
    """Open a layer archive for reading, whatever its compression.

    Parameters
    ----------
    source
        A blocking reader of the archive's bytes, with `readinto`.
    limits
        `stream_size`, `ratio` and `zstd_window_log` are enforced while reading.

    Raises
    ------
    CompressionError
        The compression is not one that layers have.
    ArchiveReadError
        The source failed.
    """
    stored = _StoredBytes(source)
    head = stored.read()
    while 0 < len(head) < _MAGIC_SIZE and (more := stored.read()):
        head += more
    for magic, name in _UNSUPPORTED.items():
        if head.startswith(magic):
            raise CompressionError(f"the archive is compressed with {name}; layers are gzip, zstd or plain tar")
    if head.startswith(_GZIP_MAGIC):
        return ArchiveReader(stored, _Members(stored, head, _gzip_member, "gzip"), MediaType.TAR_GZIP, limits)
    if head.startswith((_ZSTD_MAGIC, *_ZSTD_SKIPPABLE)):

        def zstd_frame(magic: bytes) -> ZstdDecompressor | None:
            if not magic.startswith((_ZSTD_MAGIC, *_ZSTD_SKIPPABLE)):
                return None
            return ZstdDecompressor(options={DecompressionParameter.window_log_max: limits.zstd_window_log})

        return ArchiveReader(stored, _Members(stored, head, zstd_frame, "zstd"), MediaType.TAR_ZSTD, limits)
    return ArchiveReader(stored, _Plain(stored, head), MediaType.TAR, limits)


class ArchiveReader:
    """A blocking reader of an archive's uncompressed stream.

    Made by `open_archive`; a `Source` for `unpack` and `survey`.
    """

    def __init__(self, stored: "_StoredBytes", stream: "_Stream", media_type: MediaType, limits: ArchiveLimits) -> None:
        self._stored = stored
        self._stream = stream
        self._media_type = media_type
        self._limits = limits
        # Of an archive that is not compressed both digests are one.
        self._hash = stored.hash if media_type is MediaType.TAR else hashlib.sha256()
        self._size = 0
        self._ended = False

    def readinto(self, buffer: memoryview, /) -> int:
        """Read at least one byte into the buffer and return the number, 0 at the end.

        Raises
        ------
        CompressionError
            The compressed form is corrupt, cut short, or followed by something else.
        ArchiveLimitError
            The stream is too large, as a whole or for its compressed size.
        ArchiveReadError
            The source failed.
        """
        count = self._stream.readinto(buffer)
        if not count:
            self._ended = True
            return 0
        if self._hash is not self._stored.hash:
            self._hash.update(buffer[:count])
        self._size += count
        self._limits.check_stream_size(self._size)
        self._limits.check_ratio(self._size, self._stored.size)
        return count

    def identity(self) -> ArchiveIdentity:
        """Return digests and sizes; to be called when the stream has been read to its end."""
        if not self._ended:
            raise RuntimeError("the archive has not been read to its end")
        return ArchiveIdentity(
            digest=Digest(self._stored.hash.hexdigest()),
            diff_id=Digest(self._hash.hexdigest()),
            size=self._stored.size,
            uncompressed_size=self._size,
            media_type=self._media_type,
        )


class _StoredBytes:
    """The archive's bytes as they are stored, counted and hashed as they are read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._buffer = memoryview(bytearray(_PIECE))
        self.hash = hashlib.sha256()
        self.size = 0

    def readinto(self, buffer: memoryview) -> int:
        try:
            count = self._source.readinto(buffer) or 0
        except OSError as error:
            raise ArchiveReadError(f"the archive cannot be read on after {self.size} bytes: {error}") from error
        self.hash.update(buffer[:count])
        self.size += count
        return count

    def read(self) -> bytes:
        return bytes(self._buffer[: self.readinto(self._buffer)])


class _Stream(Protocol):
    def readinto(self, buffer: memoryview, /) -> int: ...


class _Plain:
    """An archive that is not compressed."""

    def __init__(self, stored: _StoredBytes, head: bytes) -> None:
        self._stored = stored
        self._head = memoryview(head)

    def readinto(self, buffer: memoryview, /) -> int:
        if not self._head:
            return self._stored.readinto(buffer)
        count = min(len(self._head), len(buffer))
        buffer[:count] = self._head[:count]
        self._head = self._head[count:]
        return count


class _Decompressor(Protocol):
    """One gzip member or zstd frame, as both libraries have it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _NewDecompressor(Protocol):
    def __call__(self, magic: bytes, /) -> _Decompressor | None: ...


def _gzip_member(magic: bytes) -> _Decompressor | None:
    if not magic.startswith(_GZIP_MAGIC):
        return None
    member: _Decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    return member


class _Members:
    """Gzip members or zstd frames, one after the other, and nothing behind them."""

    def __init__(self, stored: _StoredBytes, head: bytes, new: _NewDecompressor, name: str) -> None:
        self._stored = stored
        self._new = new
        self._name = name
        self._input = head
        self._current = self._next()

    def readinto(self, buffer: memoryview, /) -> int:
        while self._current is not None:
            if self._current.eof:
                self._input = self._current.unused_data
                self._current = self._next()
                continue
            if self._current.needs_input and not self._input:
                self._input = self._stored.read()
                if not self._input:
                    raise CompressionError(f"the {self._name} stream is cut short after {self._stored.size} bytes")
            data, self._input = self._input, b""
            try:
                output = self._current.decompress(data, len(buffer))
            except _CORRUPT as error:
                if _TOO_MUCH_MEMORY in str(error):
                    raise ArchiveLimitError(
                        f"the {self._name} stream needs a larger window than the limit zstd_window_log allows"
                    ) from error
                raise CompressionError(
                    f"the {self._name} stream is corrupt before its byte {self._stored.size}: {error}"
                ) from error
            if output:
                buffer[: len(output)] = output
                return len(output)
        return 0

    def _next(self) -> _Decompressor | None:
        """Begin the next member, or return nothing at the end of the archive."""
        while len(self._input) < _MAGIC_SIZE and (more := self._stored.read()):
            self._input += more
        if not self._input:
            return None
        member = self._new(self._input)
        if member is None:
            raise CompressionError(f"the {self._name} stream is followed by something else")
        return member
