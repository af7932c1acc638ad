"""Entries of a catalog, read from their rows into types that cannot hold what the format does not allow."""

import stat
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, Self

from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.records import (
    DIGEST_SIZE,
    HASH_SHIFT,
    Compression,
    ContentHash,
    EntryFlag,
    HashAlgorithm,
)

__all__ = ["Chunk", "Entry", "Row", "compression_of", "decode_xattrs", "hash_algorithm_of", "show_path"]

_COMPRESSION_SHIFT: Final = 11
_THREE_BITS: Final = 7
_ALGORITHMS: Final = {algorithm.number: algorithm for algorithm in HashAlgorithm}
_GROUP_SHIFT: Final = 32
_COUNT_MASK: Final = (1 << _GROUP_SHIFT) - 1


class Row(NamedTuple):
    """A row of the table `catalog` as SQLite has it; text is bytes, and any column may be of any type."""

    rowid: Any
    md5path_1: Any
    md5path_2: Any
    parent_1: Any
    parent_2: Any
    hardlinks: Any
    hash: Any
    size: Any
    mode: Any
    mtime: Any
    mtimens: Any
    flags: Any
    name: Any
    symlink: Any
    uid: Any
    gid: Any
    xattr: Any


class Chunk(NamedTuple):
    """A part of a file with an object of its own."""

    offset: int
    """Where it begins in the file, in bytes."""
    size: int
    """Its length, in bytes."""
    hash: ContentHash


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One path of a repository, as it is stored."""

    path: bytes
    """Absolute, without a slash at its end; the root is empty."""
    mode: int
    """As `st_mode`, with the bits of the type."""
    size: int
    """Bytes of a regular file; the number of a device; anything for others."""
    mtime: int
    """Unix seconds."""
    mtime_ns: int
    """Nanoseconds beyond them."""
    uid: int
    gid: int
    links: int
    """Number of links."""
    group: int
    """Of hard links: entries of a catalog with the same number are one file; 0 for none."""
    flags: EntryFlag
    hash: ContentHash | None
    """Of a regular file that is one object."""
    algorithm: HashAlgorithm
    """Of the file's objects."""
    compression: Compression
    """Of the file's objects."""
    target: bytes
    """Of a symbolic link; clients expand `$(NAME)` in it."""
    xattrs: dict[bytes, bytes]
    rowid: int
    """Of its row, from which clients derive the inode."""

    @property
    def name(self) -> bytes:
        """Last component of the path."""
        return self.path.rpartition(b"/")[2]

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_device(self) -> bool:
        """Whether it is a character or block device."""
        return stat.S_ISCHR(self.mode) or stat.S_ISBLK(self.mode)

    @property
    def is_hidden(self) -> bool:
        """Whether it is found by its name only."""
        return EntryFlag.HIDDEN in self.flags

    @classmethod
    def of(cls, row: Row, path: bytes) -> Self:
        """Read a row.

        Parameters
        ----------
        row
            The row.
        path
            The path whose hash it has.

        Raises
        ------
        BrokenRepositoryError
            A column does not have the type or range that the format gives it.
        """
        columns = _Columns(row, path)
        flags = columns.number("flags", 0, (1 << 31) - 1)
        links = columns.number("hardlinks", 0, (1 << 63) - 1)
        algorithm = hash_algorithm_of(flags)
        compression = compression_of(flags)
        if algorithm is None or compression is None:
            raise BrokenRepositoryError(
                f"{show_path(path)}: its flags {flags:#x} name no known hash algorithm or compression"
            )
        digest = columns.optional_bytes("hash")
        if digest is not None and len(digest) != DIGEST_SIZE:
            raise BrokenRepositoryError(f"{show_path(path)}: its hash has {len(digest)} bytes instead of {DIGEST_SIZE}")
        try:
            xattrs = decode_xattrs(columns.optional_bytes("xattr"))
        except BrokenRepositoryError as error:
            raise BrokenRepositoryError(f"{show_path(path)}: {error}") from None
        return cls(
            path=path,
            mode=columns.number("mode", 0, 0o177777),
            size=columns.number("size", 0, (1 << 63) - 1),
            mtime=columns.number("mtime", -(1 << 63), (1 << 63) - 1),
            mtime_ns=0 if row.mtimens is None else columns.number("mtimens", 0, 999_999_999),
            uid=columns.number("uid", 0, (1 << 32) - 1),
            gid=columns.number("gid", 0, (1 << 32) - 1),
            links=links & _COUNT_MASK,
            group=links >> _GROUP_SHIFT,
            flags=EntryFlag(flags),
            hash=None if digest is None else ContentHash(digest, algorithm),
            algorithm=algorithm,
            compression=compression,
            target=columns.text("symlink"),
            xattrs=xattrs,
            rowid=row.rowid,
        )


class _Columns:
    def __init__(self, row: Row, path: bytes) -> None:
        self._row = row
        self._path = path

    def number(self, column: str, least: int, most: int) -> int:
        value = getattr(self._row, column)
        if not isinstance(value, int) or not least <= value <= most:
            raise self._wrong(column, value)
        return value

    def text(self, column: str) -> bytes:
        value = getattr(self._row, column)
        if not isinstance(value, bytes):
            raise self._wrong(column, value)
        return value

    def optional_bytes(self, column: str) -> bytes | None:
        value = getattr(self._row, column)
        if value is not None and not isinstance(value, bytes):
            raise self._wrong(column, value)
        return value

    def _wrong(self, column: str, value: object) -> BrokenRepositoryError:
        shown = "NULL" if value is None else repr(value)[:80]
        return BrokenRepositoryError(f"{show_path(self._path)}: its column {column} holds {shown}")


def show_path(path: bytes) -> str:
    """Return a path as printable text; the root is `/`."""
    return repr(path.decode("utf-8", "backslashreplace"))[1:-1] if path else "/"


@lru_cache(maxsize=64)
def hash_algorithm_of(flags: int) -> HashAlgorithm | None:
    """Return the algorithm of an entry's hashes; None if nobody knows its number."""
    return _ALGORITHMS.get(flags >> HASH_SHIFT & _THREE_BITS)


@lru_cache(maxsize=64)
def compression_of(flags: int) -> Compression | None:
    """Return how an entry's objects are stored; None if nobody knows its number."""
    number = flags >> _COMPRESSION_SHIFT & _THREE_BITS
    return Compression(number) if number in (Compression.ZLIB, Compression.NONE) else None


def decode_xattrs(blob: bytes | None) -> dict[bytes, bytes]:
    """Read packed attributes, of version 1 or 2.

    Raises
    ------
    BrokenRepositoryError
        The blob has not the form; clients then show no attribute of the entry at all.
    """
    if blob is None:
        return {}
    if len(blob) < 2 or blob[0] not in (1, 2):  # noqa: PLR2004 - version and number
        raise BrokenRepositoryError(
            f"its extended attributes are of no known version: they begin with {blob[:2].hex() or '-'}"
        )
    width = blob[0]  # of the length of a value
    attributes: dict[bytes, bytes] = {}
    position = 2
    for _ in range(blob[1]):
        head = position + 1 + width
        if head > len(blob):
            raise _cut(blob)
        middle = head + blob[position]
        end = middle + int.from_bytes(blob[position + 1 : head], "little")
        if end > len(blob):
            raise _cut(blob)
        name = blob[head:middle]
        if not name or b"\0" in name or name in attributes:
            raise BrokenRepositoryError(
                f"the name of an extended attribute is empty, twice there, or has a NUL: {name!r}"
            )
        attributes[name] = blob[middle:end]
        position = end
    if position != len(blob):
        raise BrokenRepositoryError(f"its extended attributes are {position} bytes, their column has {len(blob)}")
    return attributes


def _cut(blob: bytes) -> BrokenRepositoryError:
    return BrokenRepositoryError(f"its extended attributes do not end within their column of {len(blob)} bytes")
