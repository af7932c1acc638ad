"""A layer's tree on its way into a catalog: names and attributes in memory, content in objects.

Attributes are kept in arrays by the numbers of the name tree, so that a layer of some hundred thousand files takes some
ten megabytes.
"""

import os
import stat
from array import array
from collections import Counter
from collections.abc import Mapping
from typing import IO, Final, NamedTuple, Self

from services.common.archive.entry import Entry, Kind
from services.common.archive.errors import UnsafeArchiveError
from services.common.archive.nametree import Directory, NameTree
from services.common.archive.notes import Notes, show
from services.common.archive.ondisk import OPAQUE_VALUE, OPAQUE_XATTR
from services.common.archive.reader import TarReader
from services.common.layout import CATALOG_MARKER
from services.repository.native.records import DIGEST_SIZE
from services.repository.native.writer.content import ContentWriter, Encode
from services.repository.native.writer.pool import WorkerPool
from services.repository.native.writer.rows import DirectoryRow
from services.repository.native.writer.xattrs import pack_xattrs

__all__ = ["CatalogTree", "SettledDirectory"]

_WHOLE: Final = 256 << 10
"""Files up to this size are taken in one piece."""

_BILLION: Final = 1_000_000_000
_NODE_TYPES: Final = {Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}
_OPAQUE: Final = {OPAQUE_XATTR.encode(): OPAQUE_VALUE}
_MARKER: Final = CATALOG_MARKER.encode()
_VARIABLE: Final = b"$("
_GROUP_SHIFT: Final = 32


class _Attributes(NamedTuple):
    """Attributes of a directory."""

    mode: int = stat.S_IFDIR | 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    """Nanoseconds since the epoch; 0 for what an archive does not mention, wherever and whenever it is published."""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


class SettledDirectory(NamedTuple):
    """What a directory is in the end; the name tree keeps it as its attributes."""

    row: DirectoryRow
    links: Mapping[int, int]
    """Of what has several names in this directory: how many they are, and the group, as catalogs have both."""


class CatalogTree:
    """A layer's tree, whose whiteouts and opaque directories are those that overlayfs reads; a context manager.

    Parameters
    ----------
    pool, encode
        Make objects of content, as `ContentWriter` has it.
    notes
        Told what CVMFS cannot keep.
    """

    def __init__(self, pool: WorkerPool, encode: Encode, notes: Notes) -> None:
        self.names = NameTree(self._forget)
        self.modes = array("I")
        self.uids = array("I")
        self.gids = array("I")
        self.seconds = array("q")
        self.nanoseconds = array("I")
        self.digests = bytearray()
        """Of each number that is a whole file: the object's digest."""
        self.targets: dict[int, bytes] = {}
        """Of symbolic links."""
        self.devices: dict[int, int] = {}
        self.xattrs: dict[int, bytes] = {}
        """Packed, of everything but directories."""
        self.chunks: dict[int, list[tuple[int, int, bytes]]] = {}
        """Offset, size and digest of the objects of large files."""
        self._notes = notes
        self._groups = 0
        self._separated = 0
        self.content = ContentWriter(pool, encode, self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.content.close()

    @property
    def size(self) -> int:
        """Sum of the sizes of files and symbolic links, hard links counted once, in bytes."""
        return self.names.size

    def directory(self, path: bytes, entry: Entry) -> None:
        """Make a directory, or give one that exists new attributes."""
        self.names.directory(path).attributes = _Attributes(
            stat.S_IFDIR | entry.mode, entry.uid, entry.gid, entry.mtime, tuple(entry.xattrs.items())
        )

    def file(self, path: bytes, entry: Entry, data: TarReader) -> None:
        """Make a file in place of what is there."""
        number = self._add(path, entry, stat.S_IFREG, entry.size)
        if entry.extents is not None:
            self._sparse(number, entry, data)
        elif entry.size <= _WHOLE:
            self.content.small(number, data.whole() if entry.size else b"")
        else:
            self.content.begin(number, entry.size)
            while (view := data.some()) is not None:
                self.content.write(view)

    def symlink(self, path: bytes, entry: Entry) -> None:
        """Make a symbolic link in place of what is there."""
        if _VARIABLE in entry.link:
            self._notes.add(f"{show(path)}: clients of CVMFS expand the variable in its target {show(entry.link)}")
        number = self._add(path, entry, stat.S_IFLNK, len(entry.link))
        self.targets[number] = entry.link
        self.modes[number] = stat.S_IFLNK | 0o777  # whatever an archive says, Linux has no other

    def node(self, path: bytes, entry: Entry) -> None:
        """Make a device or fifo in place of what is there."""
        number = self._add(path, entry, _NODE_TYPES[entry.kind], 0)
        self.devices[number] = 0 if entry.kind is Kind.FIFO else os.makedev(entry.major, entry.minor)

    def link(self, path: bytes, target: bytes) -> bool:
        """Make a hard link in place of what is there; return False where the target is absent."""
        return self.names.link(path, target)

    def vacate(self, path: bytes) -> None:
        """Remove what is there, if anything, but make its parents."""
        self.names.vacate(path)

    def imply(self, path: bytes) -> bytes:
        """Make a directory, which may be the root, unless it exists; return its path."""
        self.names.imply(path)
        return path

    def is_directory(self, path: bytes) -> bool | None:
        """Tell whether a path is a directory; None where nothing is there."""
        return self.names.is_directory(path)

    def delete(self, path: bytes) -> None:
        """Make a 0:0 character device, as overlayfs wants it."""
        self.devices[self.names.add(path, 0)] = 0
        self._keep(stat.S_IFCHR, 0, 0, 0)

    def unnamed(self, content: bytes, mode: int) -> int:
        """Take a file that is no part of the layer's tree, and return its number; `content.finish` has to follow."""
        number = self.names.number(len(content))
        self._keep(stat.S_IFREG | mode, 0, 0, 0)
        self._take(number, memoryview(content))
        return number

    def unnamed_from(self, source: IO[bytes], size: int, mode: int) -> int:
        """Take a file of so many bytes, at least one, from another one, as `unnamed` does; return its number."""
        number = self.names.number(size)
        self._keep(stat.S_IFREG | mode, 0, 0, 0)
        self.content.begin(number, size)
        while piece := source.read(_WHOLE):
            self.content.write(memoryview(piece))
        return number

    def make_opaque(self, path: bytes) -> None:
        """Give a directory the attribute that overlayfs wants."""
        directory = self.names.directory(path)
        attributes = directory.attributes or _Attributes()
        # First, so that it is none of those that are too many.
        directory.attributes = attributes._replace(xattrs=(*_OPAQUE.items(), *attributes.xattrs))

    def finish(self) -> None:
        """Wait for the content, and settle what depends on the whole tree.

        Raises
        ------
        UnsafeArchiveError
            Something has the name that marks the roots of nested catalogs. Whatever it is, checkers would take it for a
            mark, and find fault with the repository.
        """
        self.content.finish()
        self._settle(self.names.root, b"")
        if self._separated:
            self._notes.add(
                f"{self._separated} names are hard links across directories, which CVMFS does not have: those of each "
                "directory are a file of their own, of the same content"
            )

    def whole(self, number: int, digest: bytes) -> None:
        """Take the object of a file."""
        self.digests[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE] = digest

    def chunk(self, number: int, offset: int, size: int, digest: bytes) -> None:
        """Take the object of a part of a file."""
        self.chunks.setdefault(number, []).append((offset, size, digest))

    def _take(self, number: int, content: memoryview) -> None:
        if len(content) <= _WHOLE:
            self.content.small(number, content)
        else:
            self.content.begin(number, len(content))
            self.content.write(content)

    def _add(self, path: bytes, entry: Entry, kind: int, size: int) -> int:
        number = self.names.add(path, size)
        self._keep(kind | entry.mode, entry.uid, entry.gid, entry.mtime)
        if entry.xattrs:
            packed = pack_xattrs(entry.xattrs, path=path, notes=self._notes)
            if packed is not None:
                self.xattrs[number] = packed
        return number

    def _keep(self, mode: int, uid: int, gid: int, mtime: int) -> None:
        self.modes.append(mode)
        self.uids.append(uid)
        self.gids.append(gid)
        seconds, nanoseconds = divmod(mtime, _BILLION)
        self.seconds.append(seconds)
        self.nanoseconds.append(nanoseconds)
        self.digests.extend(_NO_DIGEST)

    def _sparse(self, number: int, entry: Entry, data: TarReader) -> None:
        """Take a file with holes, which become zeros."""
        if not entry.size:
            self.content.small(number, b"")
            return
        self.content.begin(number, entry.size)
        position = 0
        extents = iter(entry.extents or ())
        left = 0
        while (view := data.some()) is not None:
            while view:
                if not left:
                    offset, left = next(extents)
                    self.content.write_hole(offset - position)
                    position = offset + left
                count = min(left, len(view))
                self.content.write(view[:count])
                left -= count
                view = view[count:]
        self.content.write_hole(entry.size - position)

    def _settle(self, directory: Directory, path: bytes) -> None:
        if _MARKER in directory:
            raise UnsafeArchiveError(f"{show(path)} holds {show(_MARKER)}, a name that is reserved by CVMFS")
        attributes: _Attributes = directory.attributes or _Attributes()
        seconds, nanoseconds = divmod(attributes.mtime, _BILLION)
        inner = [(name, node) for name, node in directory.items() if isinstance(node, Directory)]
        row = DirectoryRow(
            mode=attributes.mode,
            uid=attributes.uid,
            gid=attributes.gid,
            mtime=seconds,
            mtimens=nanoseconds,
            links=2 + len(inner),
            xattr=pack_xattrs(dict(attributes.xattrs), path=path, notes=self._notes) if attributes.xattrs else None,
        )
        directory.attributes = SettledDirectory(row, self._link_groups(directory))
        for name, node in inner:
            self._settle(node, path + b"/" + name if path else name)

    def _link_groups(self, directory: Directory) -> Mapping[int, int]:
        linked = self.names.links
        if not linked:
            return {}
        names = Counter(node for node in directory.values() if not isinstance(node, Directory) and node in linked)
        groups = {}
        for number, count in names.items():
            if linked[number] > count:
                self._separated += count
            if count > 1:
                self._groups += 1
                groups[number] = self._groups << _GROUP_SHIFT | count
        return groups

    def _forget(self, number: int) -> None:
        self.targets.pop(number, None)
        self.devices.pop(number, None)
        self.xattrs.pop(number, None)


_NO_DIGEST: Final = bytes(DIGEST_SIZE)
