"""A strict, streaming reader of tar entries.

Where readers are known to take an archive differently, it refuses the archive: what the publisher checks must be what
every other reader sees.
"""

from enum import Enum
from typing import Final

from services.common.archive.errors import (
    ArchiveLimitError,
    MalformedArchiveError,
    UnsafeArchiveError,
    UnsupportedEntryError,
)
from services.common.archive.header import Header, number, parse_header
from services.common.archive.limits import ArchiveLimits
from services.common.archive.notes import show
from services.common.archive.pax import PaxRecords, parse_records, pax_number, pax_time
from services.common.archive.sparse import Extents, SparseFile, checked_extents, gnu_sparse, pax_sparse
from services.common.archive.stream import BLOCK, TarStream

__all__ = ["Entry", "Kind", "TarReader"]

_ZERO_BLOCK: Final = bytes(BLOCK)
_MAX_ID: Final = (1 << 32) - 2
"""Largest user or group id; the one above means "leave it" to the kernel."""
_MAX_MAJOR: Final = (1 << 12) - 1
_MAX_MINOR: Final = (1 << 20) - 1
_MAX_SIZE: Final = (1 << 63) - 1
_MAX_SECONDS: Final = 1 << 62
_OCTAL_LIMIT: Final = 0o77777777777
_SIZE_STAND_INS: Final = (0, _OCTAL_LIMIT)
"""What writers put into the ustar size where only a PAX record can hold it (Go and GNU tar; libarchive)."""

_GLOBAL_HARMLESS: Final = (b"comment", b"charset", b"hdrcharset")


class Kind(Enum):
    """Types of entries that a layer can hold."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    LINK = "hard link"
    CHARACTER = "character device"
    BLOCK = "block device"
    FIFO = "fifo"


_KINDS: Final = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.LINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}


class Entry:
    """One entry, its numbers checked; the names are as the archive has them."""

    __slots__ = (
        "extents",
        "gid",
        "kind",
        "link",
        "major",
        "minor",
        "mode",
        "mtime",
        "name",
        "size",
        "stored",
        "uid",
        "xattrs",
    )

    name: bytes
    kind: Kind
    mode: int
    """Permissions, setuid, setgid and sticky bit."""
    uid: int
    gid: int
    mtime: int
    """Nanoseconds since the epoch."""
    size: int
    """Size of the file, in bytes; 0 for everything else."""
    stored: int
    """Bytes of data in the stream, without padding."""
    extents: Extents | None
    """Where the data belong in a sparse file."""
    link: bytes
    major: int
    minor: int
    xattrs: dict[bytes, bytes]


_NO_XATTRS: Final[dict[bytes, bytes]] = {}


class _Prelude:
    """The extended headers before an entry."""

    __slots__ = ("long_link", "long_name", "pax")

    def __init__(self) -> None:
        self.pax: PaxRecords | None = None
        self.long_name: bytes | None = None
        self.long_link: bytes | None = None


class TarReader:
    """The entries of a stream, one after the other.

    Parameters
    ----------
    stream
        The uncompressed stream.
    limits
        Enforced while reading.
    """

    def __init__(self, stream: TarStream, limits: ArchiveLimits) -> None:
        self._stream = stream
        self._limits = limits
        self._unread = 0
        self._padding = 0
        self.entries = 0

    def next(self) -> Entry | None:
        """Return the next entry, or nothing at the end of the archive, when the stream has been read to its end.

        Data of the entry before that were not taken are passed over.

        Raises
        ------
        MalformedArchiveError, UnsupportedEntryError, UnsafeArchiveError, ArchiveLimitError
            As the stream deserves.
        """
        if self._unread or self._padding:
            self._stream.skip(self._unread + self._padding)
            self._unread = self._padding = 0
        prelude: _Prelude | None = None
        while True:
            view = self._stream.block()
            block = _ZERO_BLOCK if view is None else bytes(view)
            if block == _ZERO_BLOCK:
                if prelude is not None:
                    raise MalformedArchiveError("the archive ends after an extended header, before its entry")
                if view is not None:
                    self._finish()
                return None
            header = parse_header(block)
            if header.typeflag in _PRELUDES:
                prelude = prelude or _Prelude()
                self._read_prelude(header, prelude)
            elif header.typeflag == b"g":
                if prelude is not None:
                    raise MalformedArchiveError("a global PAX header between an entry and its extended header")
                self._check_global(header)
            else:
                self.entries += 1
                if self.entries > self._limits.entries:
                    raise ArchiveLimitError(f"more than {self._limits.entries} entries (limit entries)")
                return self._entry(header, block, prelude)

    def some(self) -> memoryview | None:
        """Return some of what is left of the current entry's data, or nothing at their end."""
        if not self._unread:
            return None
        view = self._stream.some(self._unread)
        self._unread -= len(view)
        return view

    def whole(self) -> memoryview:
        """Return all data of the current entry, whose size must fit the stream's buffer together with its padding."""
        size = self._unread
        view = self._stream.take(size + self._padding)
        self._unread = self._padding = 0
        return view[:size]

    def _finish(self) -> None:
        """Check that nothing but zeros follows the first zero block, and read to the end of the stream."""
        second = self._stream.block()
        if second is not None and second != _ZERO_BLOCK:
            raise MalformedArchiveError("the archive goes on after a zero block: readers disagree where it ends")
        while (view := self._stream.rest()) is not None:
            if any(bytes(view).strip(b"\0")):
                raise MalformedArchiveError("the archive is followed by something that is not padding")

    def _read_prelude(self, header: Header, prelude: _Prelude) -> None:
        content = self._metadata(header)
        if header.typeflag == b"x":
            if prelude.pax is not None:
                raise MalformedArchiveError("two extended headers before one entry: readers disagree which counts")
            prelude.pax = parse_records(content, self._limits)
            return
        name = content.split(b"\0", 1)[0]
        if header.typeflag == b"L":
            if prelude.long_name is not None:
                raise MalformedArchiveError("two GNU long names before one entry: readers disagree which counts")
            prelude.long_name = name
        else:
            if prelude.long_link is not None:
                raise MalformedArchiveError("two GNU long link names before one entry: readers disagree which counts")
            prelude.long_link = name

    def _check_global(self, header: Header) -> None:
        """Pass over a global header, unless it changes entries: Docker ignores its records and GNU tar obeys them."""
        records = parse_records(self._metadata(header), self._limits)
        if records.xattrs or records.sparse or any(key not in _GLOBAL_HARMLESS for key in records.values):
            keys = b", ".join((*records.values, *records.xattrs))
            raise MalformedArchiveError(f"a global PAX header sets {show(keys)}: readers disagree whether it counts")

    def _metadata(self, header: Header) -> bytes:
        size = header.size
        if not 0 <= size <= self._limits.header_size:
            raise ArchiveLimitError(
                f"an extended header of {size} bytes, more than {self._limits.header_size} (limit header_size)"
            )
        parts = []
        left = size + -size % BLOCK
        while left:
            view = self._stream.some(left)
            left -= len(view)
            parts.append(bytes(view))
        return b"".join(parts)[:size]

    def _entry(self, header: Header, block: bytes, prelude: _Prelude | None) -> Entry:
        entry = Entry()
        kind = _KINDS.get(header.typeflag)
        if kind is None:
            raise UnsupportedEntryError(
                f"the entry {show(header.name)} has the type {header.typeflag!r}, which no layer holds"
            )
        entry.kind = kind
        entry.name = header.name
        entry.link = header.link
        entry.mode = header.mode & 0o7777
        entry.uid = header.uid
        entry.gid = header.gid
        entry.mtime = header.mtime * 1_000_000_000
        entry.size = entry.stored = header.size
        entry.extents = None
        entry.xattrs = _NO_XATTRS
        sparse: SparseFile | None = None
        try:
            if prelude is not None:
                _apply_prelude(entry, prelude)
            if header.typeflag == b"S":
                sparse = gnu_sparse(block, self._stream, self._limits)
            elif prelude is not None and prelude.pax is not None:
                sparse = pax_sparse(prelude.pax, self._stream, self._limits, stored=entry.stored)
            self._check(entry, header, sparse)
        except (MalformedArchiveError, ArchiveLimitError, UnsafeArchiveError) as error:
            raise type(error)(f"in the entry {show(entry.name)}: {error}") from None
        self._unread = entry.stored
        self._padding = -entry.stored % BLOCK
        return entry

    def _check(self, entry: Entry, header: Header, sparse: SparseFile | None) -> None:
        if not 0 <= entry.uid <= _MAX_ID or not 0 <= entry.gid <= _MAX_ID:
            raise MalformedArchiveError(f"the owner {entry.uid}:{entry.gid} is out of range")
        if not -_MAX_SECONDS < header.mtime < _MAX_SECONDS:
            raise MalformedArchiveError(f"the time {header.mtime} is out of range")
        if not 0 <= entry.size <= _MAX_SIZE:
            raise MalformedArchiveError(f"the size {entry.size} is out of range")
        if entry.kind is Kind.FILE:
            self._check_file(entry, header, sparse)
            return
        if sparse is not None:
            raise MalformedArchiveError(f"a sparse {entry.kind.value}")
        if entry.size:
            raise MalformedArchiveError(f"a {entry.kind.value} with {entry.size} bytes of data: readers disagree")
        if entry.kind in (Kind.LINK, Kind.SYMLINK):
            self._check_link(entry)
        elif entry.kind in (Kind.CHARACTER, Kind.BLOCK):
            entry.major = number(header.major, "major device number")
            entry.minor = number(header.minor, "minor device number")
            if not 0 <= entry.major <= _MAX_MAJOR or not 0 <= entry.minor <= _MAX_MINOR:
                raise MalformedArchiveError(f"the device {entry.major}:{entry.minor} is out of range")

    def _check_file(self, entry: Entry, header: Header, sparse: SparseFile | None) -> None:
        if sparse is not None:
            entry.name = sparse.name or entry.name
            entry.stored -= sparse.map_size
            entry.size = sparse.size
            entry.extents = checked_extents(sparse, entry.stored)
            if not 0 <= entry.size <= _MAX_SIZE:
                raise MalformedArchiveError(f"the size {entry.size} is out of range")
        if entry.name.endswith(b"/"):
            # The seventh edition had no type for directories; with a type, readers disagree.
            if header.typeflag != b"\0" or entry.size:
                raise MalformedArchiveError("a file whose name ends in a slash: readers disagree what it is")
            entry.kind = Kind.DIRECTORY

    def _check_link(self, entry: Entry) -> None:
        if not entry.link:
            raise UnsafeArchiveError(f"a {entry.kind.value} without a target")
        if b"\0" in entry.link:
            raise UnsafeArchiveError("a link target with a NUL byte in it")
        if len(entry.link) > self._limits.link_length:
            raise ArchiveLimitError(
                f"a link target of {len(entry.link)} bytes, more than {self._limits.link_length} (limit link_length)"
            )


_PRELUDES: Final = (b"x", b"L", b"K")


def _apply_prelude(entry: Entry, prelude: _Prelude) -> None:
    """Put the values of extended headers in the place of the header's own."""
    pax = prelude.pax
    if pax is not None:
        values = pax.values
        entry.xattrs = pax.xattrs
        entry.name = values.get(b"path") or entry.name
        entry.link = values.get(b"linkpath") or entry.link
        if value := values.get(b"mtime"):
            entry.mtime = pax_time(value)
        if value := values.get(b"uid"):
            entry.uid = pax_number(value, "owner")
        if value := values.get(b"gid"):
            entry.gid = pax_number(value, "group")
        if value := values.get(b"size"):
            _apply_size(entry, pax_number(value, "size"))
    if prelude.long_name is not None:
        if pax is not None and pax.values.get(b"path", prelude.long_name) != prelude.long_name:
            raise MalformedArchiveError("a GNU long name and another PAX path: readers disagree which counts")
        entry.name = prelude.long_name
    if prelude.long_link is not None:
        if pax is not None and pax.values.get(b"linkpath", prelude.long_link) != prelude.long_link:
            raise MalformedArchiveError("a GNU long link name and another PAX linkpath: readers disagree which counts")
        entry.link = prelude.long_link


def _apply_size(entry: Entry, size: int) -> None:
    """Take a PAX size only where the header cannot hold it or says the same (CVE-2025-62518)."""
    if entry.size != size and (size <= _OCTAL_LIMIT or entry.size not in _SIZE_STAND_INS):
        raise MalformedArchiveError(f"its PAX size is {size}, its header's size {entry.size}: readers disagree")
    entry.size = entry.stored = size
