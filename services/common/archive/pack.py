"""Pack an overlay upper directory into a layer's tar stream.

The stream is the same for the same tree: entries in byte order of their names, a directory before what is in it, no
names of users and groups, no access times. Deletions become AUFS whiteouts (OCI image specification, layer.md).
"""

import errno
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from services.common.archive.entry import Kind
from services.common.archive.errors import ArchiveLimitError, TreeChangedError, TreeReadError, UnsupportedTreeError
from services.common.archive.file_content import copy_content, read_content
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerContent
from services.common.archive.notes import Notes, show
from services.common.archive.ondisk import is_whiteout
from services.common.archive.paths import OPAQUE_MARKER, WHITEOUT_PREFIX
from services.common.archive.publishable import check_publishable
from services.common.archive.tarwriter import Sink, TarWriter
from services.common.archive.upper_attributes import UpperAttributesReader
from services.common.descent import DIRECTORY, Descent

__all__ = ["has_changes", "pack"]

_HANDLE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_CONTENT: Final = os.O_RDONLY | os.O_CLOEXEC
_SMALL: Final = 128 << 10
"""Files up to this size are read in one piece."""
_WHITEOUT_MODE: Final = 0o600


def has_changes(tree: Path, *, exclude: Collection[bytes] = ()) -> bool:
    """Tell whether an upper directory holds anything that `pack` would put into an archive.

    Parameters
    ----------
    tree
        The upper directory.
    exclude
        Paths relative to it, without leading slash, which do not count, with everything below them.

    Raises
    ------
    TreeReadError
        The file system failed.
    """
    try:
        names = os.listdir(os.fsencode(tree))
    except OSError as error:
        raise TreeReadError(f"{tree} cannot be read: {error.strerror}") from error
    return any(name not in exclude for name in names)


def pack(
    tree: Path, sink: Sink, *, exclude: Collection[bytes] = (), limits: ArchiveLimits | None = None
) -> LayerContent:
    """Write the layer that an overlay upper directory is; blocking.

    Parameters
    ----------
    tree
        The upper directory. Its own attributes are not part of the layer, as with Docker.
    sink
        Gets the uncompressed stream, in pieces of up to 1 MiB. Each is a `bytes` of its own that the sink may keep.
    exclude
        Paths relative to the tree, without leading slash, that are left out, with everything below them.
    limits
        Those of the publisher, where the stream is to be published: what it refuses, or does not keep, is found out
        here. A stream without limits is one for a layer of this machine, which holds everything that the tree does.

    Returns
    -------
    LayerContent
        What the layer holds; the notes name what was left out (sockets, attributes that no layer carries).

    Raises
    ------
    TreeReadError
        The file system failed.
    TreeChangedError
        A file became shorter while it was read. Files that vanish before they are read are left out.
    UnsupportedTreeError
        The tree holds what no layer archive can say: a name that starts like a whiteout, or a file whose content
        overlayfs has elsewhere.
    ArchiveLimitError
        The archive would pass a limit.
    """
    writer = TarWriter(sink)
    packer = _Packer(writer, frozenset(exclude), limits)
    packer.pack(tree)
    writer.close()
    return packer.content()


class _Level:
    """A directory that is being packed."""

    __slots__ = ("hiding", "names")

    def __init__(self, descriptor: int, *, hiding: bool) -> None:
        self.hiding = hiding
        """Whether it or a directory above hides all that lower layers hold there."""
        # In byte order, which is not the order of the decoded names.
        self.names = iter(sorted(map(os.fsencode, os.listdir(descriptor))))


class _Packer:
    """One packing of a tree.

    Everything is held by a descriptor of its own while it is looked at, opened with O_PATH first: what a container puts
    in a file's place meanwhile is not opened, and opening a device could have effects.
    """

    def __init__(self, writer: TarWriter, exclude: frozenset[bytes], limits: ArchiveLimits | None) -> None:
        self._writer = writer
        self._exclude = exclude
        self._limits = limits
        self._notes = Notes()
        self._attributes = UpperAttributesReader(self._notes, leaves=limits is not None)
        self._levels: list[_Level] = []
        self._descent: Descent
        self._prefix = b""
        """How the paths of what is in the present directory begin."""
        self._links: dict[tuple[int, int], bytes] = {}
        """First path of each file of several links."""
        self._entries = 0
        self._names_size = 0
        self._tree_size = 0
        self._whiteouts: list[bytes] = []
        self._opaque: list[bytes] = []

    def content(self) -> LayerContent:
        return LayerContent(
            entries=self._entries,
            tree_size=self._tree_size,
            stream_size=self._writer.position,
            whiteouts=tuple(sorted(self._whiteouts)),
            opaque=tuple(sorted(self._opaque)),
            notes=self._notes.collected(),
        )

    def pack(self, tree: Path) -> None:
        try:
            descent = Descent.into(tree)
        except OSError as error:
            raise TreeReadError(f"{tree} cannot be read: {error.strerror}") from error
        with descent as self._descent:
            self._begin_root()
            while self._next():
                pass

    def _begin_root(self) -> None:
        try:
            self._levels.append(_Level(self._descent.descriptor, hiding=False))
            attributes = self._attributes.read(self._descent.descriptor, b"", Kind.DIRECTORY)
        except OSError as error:
            raise _failed(b"", error) from error
        if attributes.opaque:
            self._opaque_marker(b"")

    def _next(self) -> bool:
        """Pack the next name of the present directory, or leave that; return False when everything has been packed."""
        name = next(self._levels[-1].names, None)
        if name is None:
            return self._leave()
        path = self._prefix + name
        if path in self._exclude:
            return True
        if name.startswith(WHITEOUT_PREFIX):
            raise UnsupportedTreeError(
                f"{show(path)}: a layer archive cannot hold a name that starts with .wh., which means a deletion"
            )
        try:
            handle = os.open(name, _HANDLE, dir_fd=self._descent.descriptor)
        except FileNotFoundError:
            return True
        except OSError as error:
            raise _failed(path, error) from error
        try:
            self._pack(handle, os.fstat(handle), path)
        except OSError as error:
            raise _failed(path, error) from error
        finally:
            os.close(handle)
        return True

    def _leave(self) -> bool:
        if not self._descent.depth:
            return False
        try:
            name = self._descent.leave()
        except OSError as error:
            path = self._prefix[:-1]
            if error.errno == errno.ESTALE:
                raise TreeChangedError(
                    f"{show(path)} was moved while it was read; stop what moves it and repeat"
                ) from error
            raise _failed(path, error) from error
        self._levels.pop()
        self._prefix = self._prefix[: -len(name) - 1]
        return True

    def _pack(self, handle: int, status: os.stat_result, path: bytes) -> None:
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            self._directory(handle, status, path)
        elif is_whiteout(status):
            self._whiteout(path)
        elif kind == stat.S_IFSOCK:
            self._notes.add(f"{show(path)}: a socket, which no archive can hold, skipped")
        elif status.st_nlink > 1 and self._linked(handle, status, path):
            return
        elif kind == stat.S_IFREG:
            self._file(handle, path)
        else:
            self._special(handle, status, path)

    def _file(self, handle: int, path: bytes) -> None:
        descriptor = os.open(_held(handle), _CONTENT)
        try:
            # Again: it may have grown since, and what is read must be what its header says.
            status = os.fstat(descriptor)
            size = status.st_size
            xattrs = self._attributes.read(descriptor, path, Kind.FILE).kept
            if self._limits is not None:
                # Before a hole of many terabytes is read.
                self._limits.check_tree_size(self._tree_size + size, path)
            content = read_content(descriptor, size, path) if size <= _SMALL else None
            self._entry(path, b"0", status, size=size, xattrs=xattrs)
            self._tree_size += size
            if content is None:
                copy_content(descriptor, status, path, self._writer)
            elif content:
                self._writer.small(content)
        finally:
            os.close(descriptor)

    def _special(self, handle: int, status: os.stat_result, path: bytes) -> None:
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            xattrs = self._attributes.read(_held(handle), path, Kind.SYMLINK).kept
            link = os.readlink(b"", dir_fd=handle)
            self._entry(path, b"2", status, link=link, xattrs=xattrs)
            self._tree_size += len(link)
            return
        typeflag, name = _SPECIAL[kind]
        self._entry(
            path, typeflag, status, device=status.st_rdev, xattrs=self._attributes.read(_held(handle), path, name).kept
        )

    def _directory(self, handle: int, status: os.stat_result, path: bytes) -> None:
        descriptor = os.open(b".", DIRECTORY, dir_fd=handle)
        try:
            attributes = self._attributes.read(descriptor, path, Kind.DIRECTORY)
            level = _Level(descriptor, hiding=attributes.opaque or self._levels[-1].hiding)
        except FileNotFoundError:
            # It has been removed meanwhile.
            os.close(descriptor)
            return
        except BaseException:
            os.close(descriptor)
            raise
        self._descent.enter_open(os.path.basename(path), descriptor)
        self._levels.append(level)
        self._prefix = path + b"/"
        self._entry(self._prefix, b"5", status, xattrs=attributes.kept)
        if attributes.opaque:
            self._opaque_marker(self._prefix)

    def _opaque_marker(self, prefix: bytes) -> None:
        self._opaque.append(prefix[:-1])
        self._count(prefix + OPAQUE_MARKER)
        self._writer.entry(prefix + OPAQUE_MARKER, b"0", mode=_WHITEOUT_MODE)

    def _whiteout(self, path: bytes) -> None:
        if self._levels[-1].hiding:
            return
        parent, slash, name = path.rpartition(b"/")
        marker = parent + slash + WHITEOUT_PREFIX + name
        self._count(marker)
        self._whiteouts.append(path)
        self._writer.entry(marker, b"0", mode=_WHITEOUT_MODE)

    def _linked(self, handle: int, status: os.stat_result, path: bytes) -> bool:
        """Write a hard link where the file is in the archive already."""
        first = self._links.setdefault((status.st_dev, status.st_ino), path)
        if first is path:
            return False
        # Docker sets the owner through every link, which takes capabilities off the file, and then what the link's own
        # header has.
        xattrs = self._attributes.read(_held(handle), path, Kind.FILE).kept if stat.S_ISREG(status.st_mode) else None
        self._entry(path, b"1", status, link=first, xattrs=xattrs)
        return True

    def _entry(
        self,
        name: bytes,
        typeflag: bytes,
        status: os.stat_result,
        *,
        size: int = 0,
        link: bytes = b"",
        device: int = 0,
        xattrs: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self._count(name, link)
        self._writer.entry(
            name,
            typeflag,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            size=size,
            mtime=status.st_mtime_ns,
            link=link,
            major=os.major(device),
            minor=os.minor(device),
            xattrs=xattrs,
        )

    def _count(self, name: bytes, link: bytes = b"") -> None:
        self._entries += 1
        self._names_size += len(name) + len(link)
        if (limits := self._limits) is None:
            return
        check_publishable(name.removesuffix(b"/"), limits)
        if self._entries > limits.entries:
            raise ArchiveLimitError(f"the layer has more than {limits.entries} entries (limit entries)")
        limits.check_names_size(self._names_size)


_SPECIAL: Final = {
    stat.S_IFIFO: (b"6", Kind.FIFO),
    stat.S_IFCHR: (b"3", Kind.CHARACTER),
    stat.S_IFBLK: (b"4", Kind.BLOCK),
}


def _held(handle: int) -> bytes:
    """Return the path of what a descriptor holds, which a change of names does not touch (proc(5))."""
    return b"/proc/self/fd/%d" % handle


def _failed(path: bytes, error: OSError) -> TreeReadError:
    return TreeReadError(f"{show(path)} cannot be read: {error.strerror}")
