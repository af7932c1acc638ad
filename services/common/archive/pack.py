"""Pack an overlay upper directory into a layer's tar stream.

The stream is the same for the same tree: entries in byte order of their names, a directory before what is in it, no
names of users and groups, no access times. Deletions become AUFS whiteouts (OCI image specification, layer.md).
"""

import errno
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Final

from services.common.archive.entry import Kind
from services.common.archive.errors import ArchiveLimitError, TreeChangedError, TreeReadError, UnsupportedTreeError
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerContent
from services.common.archive.notes import Notes, show
from services.common.archive.ondisk import OPAQUE_VALUE, OPAQUE_XATTR, is_whiteout
from services.common.archive.paths import (
    OPAQUE_MARKER,
    WHITEOUT_PREFIX,
    is_mistaken_for_whiteout,
    mistaken_for_whiteout,
)
from services.common.archive.tarwriter import Sink, TarWriter
from services.common.archive.xattrs import LOCAL_XATTRS, OVERLAY_PREFIX, is_layer_xattr, xattr_fits

__all__ = ["has_changes", "pack"]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_CONTENT: Final = os.O_RDONLY | os.O_CLOEXEC
_SMALL: Final = 128 << 10
"""Files up to this size are read in one piece."""
_PIECE: Final = 1 << 20
_SPARSE: Final = 1 << 20
"""Files from this size on are looked at for holes."""
_WHITEOUT_MODE: Final = 0o600
_PATH_LENGTH: Final = 4095
_PATH_DEPTH: Final = 256


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
        Those of the publisher, where the stream is to be published; it would refuse it too late. So it would names that
        CVMFS takes for deletions.

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
        The archive would be larger than the limits allow.
    """
    writer = TarWriter(sink)
    packer = _Packer(writer, frozenset(exclude), limits)
    packer.pack(tree)
    writer.close()
    return packer.content()


class _Level:
    """A directory that is being packed."""

    __slots__ = ("descriptor", "hiding", "names", "path")

    def __init__(self, descriptor: int, path: bytes, *, hiding: bool) -> None:
        self.descriptor = descriptor
        self.path = path
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
        self._levels: list[_Level] = []
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
            root = os.open(tree, _DIRECTORY)
        except OSError as error:
            raise TreeReadError(f"{tree} cannot be read: {error.strerror}") from error
        try:
            self._open_root(root)
            while self._levels:
                self._next()
        finally:
            for level in self._levels:
                os.close(level.descriptor)

    def _open_root(self, root: int) -> None:
        try:
            self._levels.append(_Level(root, b"", hiding=False))
            self._xattrs(root, b"", Kind.DIRECTORY)
        except OSError as error:
            os.close(root)
            raise _failed(b"", error) from error
        if self._opaque:
            self._opaque_marker(b"")

    def _next(self) -> None:
        """Pack the next name of the innermost directory, or leave that."""
        level = self._levels[-1]
        name = next(level.names, None)
        if name is None:
            os.close(self._levels.pop().descriptor)
            return
        path = b"%s/%s" % (level.path, name) if level.path else name
        if path in self._exclude:
            return
        if name.startswith(WHITEOUT_PREFIX):
            raise UnsupportedTreeError(
                f"{show(path)}: a layer archive cannot hold a name that starts with .wh., which means a deletion"
            )
        try:
            handle = os.open(name, _HANDLE, dir_fd=level.descriptor)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failed(path, error) from error
        try:
            status = os.fstat(handle)
            if self._limits is not None and is_mistaken_for_whiteout(name) and not is_whiteout(status):
                raise UnsupportedTreeError(f"{show(path)} cannot be published: {mistaken_for_whiteout(name)}")
            self._pack(handle, status, path)
        except OSError as error:
            raise _failed(path, error) from error
        finally:
            os.close(handle)

    def _pack(self, handle: int, status: os.stat_result, path: bytes) -> None:
        if len(self._levels) > _PATH_DEPTH:
            raise UnsupportedTreeError(f"{show(path)} is deeper than {_PATH_DEPTH} directories")
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
            xattrs = self._xattrs(descriptor, path, Kind.FILE)
            if self._limits is not None:
                # Before a hole of many terabytes is read.
                self._limits.check_tree_size(self._tree_size + size, path)
            content = _read_small(descriptor, size, path) if size <= _SMALL else None
            self._entry(path, b"0", status, size=size, xattrs=xattrs)
            self._tree_size += size
            if content is None:
                self._copy(descriptor, status, path)
            elif content:
                self._writer.small(content)
        finally:
            os.close(descriptor)

    def _copy(self, descriptor: int, status: os.stat_result, path: bytes) -> None:
        size = status.st_size
        holes = size >= _SPARSE and status.st_blocks * 512 < size
        position = 0
        while position < size:
            start, end = _next_data(descriptor, position, size) if holes else (position, size)
            if start > position:
                self._writer.zeros(start - position)
            position = start
            while position < end:
                piece = os.pread(descriptor, min(_PIECE, end - position), position)
                if not piece:
                    raise _shorter(path)
                self._writer.data(piece)
                position += len(piece)
        if holes and os.fstat(descriptor).st_size < size:
            # What was cut off looks like a hole.
            raise _shorter(path)
        self._writer.pad(size)

    def _special(self, handle: int, status: os.stat_result, path: bytes) -> None:
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            xattrs = self._xattrs(_held(handle), path, Kind.SYMLINK)
            link = os.readlink(b"", dir_fd=handle)
            self._entry(path, b"2", status, link=link, xattrs=xattrs)
            self._tree_size += len(link)
            return
        typeflag, name = _SPECIAL[kind]
        self._entry(path, typeflag, status, device=status.st_rdev, xattrs=self._xattrs(_held(handle), path, name))

    def _directory(self, handle: int, status: os.stat_result, path: bytes) -> None:
        descriptor = os.open(b".", _DIRECTORY, dir_fd=handle)
        try:
            xattrs = self._xattrs(descriptor, path, Kind.DIRECTORY)
            opaque = bool(self._opaque) and self._opaque[-1] == path
            level = _Level(descriptor, path, hiding=opaque or self._levels[-1].hiding)
        except FileNotFoundError:
            # It has been removed meanwhile.
            os.close(descriptor)
            return
        except BaseException:
            os.close(descriptor)
            raise
        self._levels.append(level)
        self._entry(path + b"/", b"5", status, xattrs=xattrs)
        if opaque:
            self._opaque_marker(path + b"/")

    def _opaque_marker(self, prefix: bytes) -> None:
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
        xattrs = self._xattrs(_held(handle), path, Kind.FILE) if stat.S_ISREG(status.st_mode) else None
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
        xattrs: dict[bytes, bytes] | None = None,
    ) -> None:
        if len(name) > _PATH_LENGTH:
            raise UnsupportedTreeError(f"{show(name)} is a path of more than {_PATH_LENGTH} bytes")
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
        if self._entries > limits.entries:
            raise ArchiveLimitError(f"the layer has more than {limits.entries} entries (limit entries)")
        limits.check_names_size(self._names_size)

    def _xattrs(self, target: int | bytes, path: bytes, kind: Kind) -> dict[bytes, bytes] | None:
        """Read the attributes that the layer carries, and find out what overlayfs has noted down."""
        try:
            names = os.listxattr(target)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return None
            raise
        if not names:
            return None
        kept: dict[bytes, bytes] = {}
        for text in names:
            name = os.fsencode(text)
            if name.startswith(OVERLAY_PREFIX):
                self._overlay_xattr(target, name, path, kind)
            elif b"=" in name:
                self._notes.add(f"{show(path)}: no archive can hold an attribute of the name {show(name)}, skipped")
            elif is_layer_xattr(name) and xattr_fits(name, kind):
                kept[name] = os.getxattr(target, text)
            elif name not in LOCAL_XATTRS:
                self._notes.add(f"{show(path)}: the attribute {show(name)} is not one that a layer carries, skipped")
        return kept

    def _overlay_xattr(self, target: int | bytes, name: bytes, path: bytes, kind: Kind) -> None:
        if name in _ELSEWHERE:
            raise UnsupportedTreeError(
                f"{show(path)} has the attribute {show(name)}: overlayfs keeps a part of it elsewhere; "
                "mount without redirect_dir and metacopy"
            )
        if name == _OPAQUE and kind is Kind.DIRECTORY and os.getxattr(target, name) == OPAQUE_VALUE:
            self._opaque.append(path)


_OPAQUE: Final = os.fsencode(OPAQUE_XATTR)

_ELSEWHERE: Final = tuple(OVERLAY_PREFIX + name for name in (b"redirect", b"metacopy", b"whiteout"))
"""overlayfs's attributes of what is whole only together with the layers below."""

_SPECIAL: Final = {
    stat.S_IFIFO: (b"6", Kind.FIFO),
    stat.S_IFCHR: (b"3", Kind.CHARACTER),
    stat.S_IFBLK: (b"4", Kind.BLOCK),
}


def _held(handle: int) -> bytes:
    """Return the path of what a descriptor holds, which a change of names does not touch (proc(5))."""
    return b"/proc/self/fd/%d" % handle


def _read_small(descriptor: int, size: int, path: bytes) -> bytes:
    if not size:
        return b""
    content = os.read(descriptor, size)
    while len(content) < size:
        piece = os.read(descriptor, size - len(content))
        if not piece:
            raise _shorter(path)
        content += piece
    return content


def _next_data(descriptor: int, position: int, size: int) -> tuple[int, int]:
    """Return start and end of the next data, both the size where there are none."""
    try:
        start = os.lseek(descriptor, position, os.SEEK_DATA)
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size, size
        raise
    return min(start, size), min(end, size)


def _shorter(path: bytes) -> TreeChangedError:
    return TreeChangedError(f"{show(path)} became shorter while it was read; stop what writes to it and repeat")


def _failed(path: bytes, error: OSError) -> TreeReadError:
    return TreeReadError(f"{show(path)} cannot be read: {error.strerror}")
