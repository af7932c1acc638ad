"""What one catalog of a flat image is made of, and its rows, which the process that writes the catalog makes.

To name a path by its hash, and to count, takes longer than to merge layers: it is done where there are several at it.
"""

import hashlib
import marshal
import stat
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from services.repository.flat.modes import Modes
from services.repository.native.flat.overlay_xattrs import without_overlay
from services.repository.native.records import COUNTER_NAMES, EntryFlag, path_hash
from services.repository.native.writer.catalog_rows import CatalogRows
from services.repository.native.writer.rows import DirectoryRow, Row

__all__ = ["Below", "FlatContents", "FlatDirectory", "pack_flat", "settled", "unpack_flat"]

_CHUNKED: Final = EntryFlag.CHUNKED.value
_EXTERNAL: Final = EntryFlag.EXTERNAL.value
_RARE: Final = _CHUNKED | _EXTERNAL
_GROUP_SHIFT: Final = 32
_FIRST_GROUP: Final = 1 << _GROUP_SHIFT
_TYPE: Final = 0o170000
_PATH_HASH: Final = struct.Struct("<qq")
_SIZE: Final = 4
"""Bytes of a packed size."""

_by_name: Final = itemgetter(11)
_Group = tuple[int, int, int]
"""A directory of a layer, and the number of a link group in it."""
_Chunks = Sequence[tuple[int, int, bytes]]


class FlatDirectory(NamedTuple):
    """A directory of a flat image."""

    path: bytes
    flags: int
    """Of its row."""
    attributes: Row
    """The row of the topmost layer that has it."""
    inner: int
    """How many directories are in it."""
    leaves: Sequence[Row]
    """What else is in it, as the layers have it, in no order; nothing where another catalog has that."""


class Below(NamedTuple):
    """A catalog directly below, which has been stored."""

    path: bytes
    name: str
    size: int
    counters: Mapping[str, int]
    """Of it and everything below it."""


class FlatContents(NamedTuple):
    """What one catalog is made of."""

    path: bytes
    """Where it begins; a text in UTF-8."""
    others_read: bool
    """The policy of permissions."""
    directories: Sequence[FlatDirectory]
    """The catalog's root, and those below it in their order."""
    mark: Row
    """What marks the root for checkers."""
    chunks: Mapping[tuple[int, int], _Chunks]
    """The parts of large files, by the path hashes that the rows of layers have."""
    properties: Sequence[tuple[str, str]]
    """What the catalog says of itself."""

    def rows(self, below: Sequence[Below]) -> tuple[CatalogRows, Mapping[str, int]]:
        """Return the rows of the catalog, and what is counted of it and of the catalogs below it.

        Raises
        ------
        BrokenRepositoryError
            A row of a layer is not as the format has it.
        """
        made = _Rows(self)
        entries = list(made.entries())
        own = made.counts
        own["nested"] = len(below)
        inner = {name: sum(nested.counters[name] for nested in below) for name in COUNTER_NAMES}
        counters = [
            (f"{prefix}_{name}", of[name])
            for name in COUNTER_NAMES
            for prefix, of in (("self", own), ("subtree", inner))
        ]
        references = [(path, name, size) for path, name, size, _ in below]
        rows = CatalogRows(self.path, entries, made.chunks, references, counters, self.properties)
        return rows, {name: own[name] + inner[name] for name in COUNTER_NAMES}


def pack_flat(contents: FlatContents, below: Iterable[Below]) -> bytes:
    """Write what a catalog is made of for another process of the same Python.

    Parameters
    ----------
    contents
        Itself.
    below
        The catalogs directly below it, which are not taken before all else is packed.
    """
    plain: tuple[Any, ...] = (*contents[:2], [tuple(directory) for directory in contents.directories], *contents[3:])
    packed = marshal.dumps(plain)
    return len(packed).to_bytes(_SIZE) + packed + marshal.dumps(list(map(tuple, below)))


def unpack_flat(packed: bytes | memoryview) -> tuple[FlatContents, Sequence[Below]]:
    """Read what `pack_flat` has written, here or in another process of this program."""
    end = _SIZE + int.from_bytes(packed[:_SIZE])
    path, others_read, directories, *more = marshal.loads(packed[_SIZE:end])  # noqa: S302 - from a socket that nobody else has
    below = marshal.loads(packed[end:])  # noqa: S302 - the same
    contents = FlatContents(path, others_read, list(map(FlatDirectory._make, directories)), *more)
    return contents, list(map(Below._make, below))


def settled(attributes: Row, inner: int, modes: Modes) -> DirectoryRow:
    """Return what a flat image says of a directory that has so many others in it."""
    xattr = None if attributes[15] is None else without_overlay(attributes[15])
    return DirectoryRow(
        mode=modes.of_directory(attributes[7]),
        uid=attributes[13],
        gid=attributes[14],
        mtime=attributes[8],
        mtimens=attributes[9],
        links=2 + inner,
        xattr=xattr,
    )


class _Mended(dict[int, int]):
    """The modes of files by what they were: there are few of them."""

    def __init__(self, modes: Modes) -> None:
        super().__init__()
        self._modes = modes

    def __missing__(self, mode: int) -> int:
        mended = self[mode] = self._modes.of_file(mode)
        return mended


class _Rows:
    """Makes the rows of one catalog, and counts them."""

    def __init__(self, contents: FlatContents) -> None:
        self._contents = contents
        self._modes = Modes(contents.others_read)
        self._mended = _Mended(self._modes)
        self._groups = 0
        self.counts: Counter[str] = Counter()
        self.chunks: list[tuple[int, int, int, int, bytes]] = []
        """Path hash, offset, size and digest of the parts of large files."""

    def entries(self) -> Iterator[Row]:
        """Give all entries, the root's first."""
        counts = self.counts
        for place, directory in enumerate(self._contents.directories):
            root = settled(directory.attributes, directory.inner, self._modes)
            counts["dir"] += 1
            counts["xattr"] += root.xattr is not None
            yield root.row(directory.path, directory.flags)
            if not place:
                counts["regular"] += 1
                yield self._contents.mark
            yield from self._leaves(directory)

    def _leaves(self, directory: FlatDirectory) -> Iterator[Row]:
        """Give the rows of what is in a directory and is none; there may be a hundred thousand."""
        counts, mended = self.counts, self._mended
        md5, unpack, prefix = hashlib.md5, _PATH_HASH.unpack, directory.path + b"/"
        above_1, above_2 = path_hash(directory.path)
        groups: Mapping[_Group, int] | None = None
        regular = file_size = 0
        leaves = sorted(directory.leaves, key=_by_name)
        for row in leaves:
            _, _, from_1, from_2, links, digest, size, mode, mtime, fraction, flags, name, target, uid, gid, xattr = row
            here_1, here_2 = unpack(md5(prefix + name, usedforsecurity=False).digest())
            if links >= _FIRST_GROUP:
                if groups is None:
                    groups = self._link_groups(leaves)
                links = groups[from_1, from_2, links >> _GROUP_SHIFT]
            kind = mode & _TYPE
            if kind == stat.S_IFREG:
                mode = mended[mode]
                regular += 1
                file_size += size
                if flags & _RARE:
                    self._count_rare(row, (here_1, here_2))
            else:
                counts["symlink" if kind == stat.S_IFLNK else "special"] += 1
            if xattr is not None:
                xattr = without_overlay(xattr)
                counts["xattr"] += xattr is not None
            yield (
                here_1,
                here_2,
                above_1,
                above_2,
                links,
                digest,
                size,
                mode,
                mtime,
                fraction,
                flags,
                name,
                target,
                uid,
                gid,
                xattr,
            )
        counts["regular"] += regular
        counts["file_size"] += file_size

    def _count_rare(self, row: Row, here: tuple[int, int]) -> None:
        counts, size, flags = self.counts, row[6], row[10]
        if flags & _CHUNKED:
            chunks = self._contents.chunks[row[:2]]
            self.chunks += [(*here, *chunk) for chunk in chunks]
            counts["chunked"] += 1
            counts["chunked_size"] += size
            counts["chunks"] += len(chunks)
        if flags & _EXTERNAL:
            counts["external"] += 1
            counts["external_file_size"] += size

    def _link_groups(self, leaves: Sequence[Row]) -> Mapping[_Group, int]:
        """Number the groups of hard links in a directory, and count what is left of each, as catalogs have both."""
        names = Counter((row[2], row[3], row[4] >> _GROUP_SHIFT) for row in leaves if row[4] >= _FIRST_GROUP)
        groups: dict[_Group, int] = {}
        for group, count in names.items():
            groups[group] = 1
            if count > 1:
                self._groups += 1
                groups[group] = self._groups << _GROUP_SHIFT | count
        return groups
