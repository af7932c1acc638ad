"""A streaming reader of tar entries.

Where readers are known to take an archive differently, it asks the policy, and goes on with what Docker takes.
"""

from typing import Final

from services.common.archive.entry import Entry, Kind
from services.common.archive.errors import (
    ArchiveLimitError,
    MalformedArchiveError,
    UnsafeArchiveError,
    UnsupportedEntryError,
)
from services.common.archive.header import Header, number, parse_header
from services.common.archive.notes import show
from services.common.archive.pax import parse_records
from services.common.archive.policy import ArchivePolicy
from services.common.archive.prelude import PRELUDES, Prelude
from services.common.archive.sparse import SparseFile, checked_extents, gnu_sparse, pax_sparse
from services.common.archive.stream import BLOCK, TarStream
from services.common.archive.witness import NOBODY, StreamWitness

__all__ = ["TarReader"]

_ZERO_BLOCK: Final = bytes(BLOCK)
_ID_SPACE: Final = 1 << 32
_NO_ID: Final = _ID_SPACE - 1
"""What means "leave it as it is" to the kernel; user and group ids are below."""
_MAX_MAJOR: Final = (1 << 12) - 1
_MAX_MINOR: Final = (1 << 20) - 1
_MAX_SIZE: Final = (1 << 63) - 1
_MAX_SECONDS: Final = 1 << 62

_GLOBAL_HARMLESS: Final = (b"comment", b"charset", b"hdrcharset")


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


_NO_XATTRS: Final[dict[bytes, bytes]] = {}


class TarReader:
    """The entries of a stream, one after the other.

    Parameters
    ----------
    stream
        The uncompressed stream.
    policy
        What is taken; its limits are enforced while reading.
    witness
        Told how the stream is made up.
    """

    def __init__(self, stream: TarStream, policy: ArchivePolicy, witness: StreamWitness = NOBODY) -> None:
        self._stream = stream
        self._witness = witness
        self._policy = policy
        self._limits = policy.limits
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
            self._pass_over()
        prelude: Prelude | None = None
        while True:
            view = self._stream.block()
            block = _ZERO_BLOCK if view is None else bytes(view)
            if block == _ZERO_BLOCK:
                if prelude is not None:
                    self._policy.object_to(
                        MalformedArchiveError("the archive ends after an extended header, before its entry")
                    )
                if view is not None:
                    self._witness.frame(block)
                    self._finish()
                return None
            self._witness.frame(block)
            header = parse_header(block, self._policy)
            if header.typeflag in PRELUDES:
                prelude = prelude or Prelude()
                prelude.add(header.typeflag, self._metadata(header), self._policy)
            elif header.typeflag == b"g":
                if prelude is not None:
                    self._policy.object_to(
                        MalformedArchiveError("a global PAX header between an entry and its extended header")
                    )
                    prelude = None
                self._check_global(header)
            else:
                self.entries += 1
                if self.entries > self._limits.entries:
                    raise ArchiveLimitError(f"more than {self._limits.entries} entries (limit entries)")
                return self._entry(header, block, prelude)

    def _pass_over(self) -> None:
        if self._unread:
            self._witness.lose("a deletion that has content")
            self._stream.skip(self._unread)
        self._witness.frame(self._stream.take(self._padding))
        self._unread = self._padding = 0

    def some(self) -> memoryview | None:
        """Return some of what is left of the current entry's data, or nothing at their end."""
        if not self._unread:
            return None
        view = self._stream.some(self._unread)
        self._unread -= len(view)
        self._witness.content(view)
        return view

    def whole(self) -> memoryview:
        """Return all data of the current entry, whose size must fit the stream's buffer together with its padding."""
        size = self._unread
        view = self._stream.take(size + self._padding)
        self._unread = self._padding = 0
        self._witness.content(view[:size])
        self._witness.frame(view[size:])
        return view[:size]

    def _finish(self) -> None:
        """Check that nothing but zeros follows the first zero block, and read to the end of the stream."""
        second = self._stream.block()
        if second is not None and second != _ZERO_BLOCK:
            raise MalformedArchiveError("the archive goes on after a zero block: readers disagree where it ends")
        if second is not None:
            self._witness.frame(second)
        while (view := self._stream.rest()) is not None:
            self._witness.frame(view)
            if any(bytes(view).strip(b"\0")):
                self._policy.object_to(
                    MalformedArchiveError("the archive is followed by something that is not padding")
                )

    def _object(self, text: str) -> None:
        self._policy.object_to(MalformedArchiveError(text))

    def _check_global(self, header: Header) -> None:
        """Pass over a global header, unless it changes entries: Docker ignores its records and GNU tar obeys them."""
        records = parse_records(self._metadata(header), self._policy)
        if records.xattrs or records.sparse or any(key not in _GLOBAL_HARMLESS for key in records.values):
            keys = b", ".join((*records.values, *records.xattrs))
            self._object(f"a global PAX header sets {show(keys)}: readers disagree whether it counts")

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
        content = b"".join(parts)
        self._witness.frame(content)
        return content[:size]

    def _entry(self, header: Header, block: bytes, prelude: Prelude | None) -> Entry:
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
                prelude.apply(entry, self._policy)
            if header.typeflag == b"S":
                sparse = gnu_sparse(block, self._stream, self._policy)
            elif prelude is not None and prelude.pax is not None:
                sparse = pax_sparse(prelude.pax, self._stream, self._policy, stored=entry.stored)
            self._check(entry, header, sparse)
        except (MalformedArchiveError, ArchiveLimitError, UnsafeArchiveError) as error:
            raise type(error)(f"in the entry {show(entry.name)}: {error}") from None
        self._unread = entry.stored
        self._padding = -entry.stored % BLOCK
        if sparse is not None:
            self._witness.lose("a sparse file")
        elif entry.stored:
            self._witness.file(entry.name, entry.stored)
        return entry

    def _check(self, entry: Entry, header: Header, sparse: SparseFile | None) -> None:
        if not 0 <= entry.uid < _NO_ID or not 0 <= entry.gid < _NO_ID:
            self._object(f"the owner {entry.uid}:{entry.gid} is out of range")
            entry.uid, entry.gid = _as_kernel_takes(entry.uid), _as_kernel_takes(entry.gid)
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
            self._object(f"a {entry.kind.value} with {entry.size} bytes of data: readers disagree")
            entry.size = entry.stored = 0
        if entry.kind in (Kind.LINK, Kind.SYMLINK):
            self._check_link(entry)
        elif entry.kind in (Kind.CHARACTER, Kind.BLOCK):
            entry.major = number(header.major, "major device number", self._policy)
            entry.minor = number(header.minor, "minor device number", self._policy)
            if not 0 <= entry.major <= _MAX_MAJOR or not 0 <= entry.minor <= _MAX_MINOR:
                self._object(f"the device {entry.major}:{entry.minor} is out of range")
                entry.major &= _MAX_MAJOR
                entry.minor &= _MAX_MINOR

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
                self._object("a file whose name ends in a slash: readers disagree what it is")
            if header.typeflag == b"\0":
                entry.kind = Kind.DIRECTORY
                entry.size = entry.stored = 0

    def _check_link(self, entry: Entry) -> None:
        if not entry.link:
            raise UnsafeArchiveError(f"a {entry.kind.value} without a target")
        if b"\0" in entry.link:
            raise UnsafeArchiveError("a link target with a NUL byte in it")
        if len(entry.link) > self._limits.link_length:
            raise ArchiveLimitError(
                f"a link target of {len(entry.link)} bytes, more than {self._limits.link_length} (limit link_length)"
            )


def _as_kernel_takes(number: int) -> int:
    """Return an id that is out of range as chown(2) takes it from those who do not look."""
    wrapped = number % _ID_SPACE
    return -1 if wrapped == _NO_ID else wrapped
