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

from services.common.archive.errors import TreeChangedError, TreeReadError, UnsupportedTreeError
from services.common.archive.model import LayerContent
from services.common.archive.notes import Notes, show
from services.common.archive.ondisk import OPAQUE_VALUE, OPAQUE_XATTR
from services.common.archive.paths import OPAQUE_MARKER, WHITEOUT_PREFIX
from services.common.archive.tarwriter import Sink, TarWriter
from services.common.archive.xattrs import LOCAL_XATTRS, OVERLAY_PREFIX, is_layer_xattr, xattr_fits

__all__ = ["has_changes", "pack"]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SMALL: Final = 128 << 10
"""Files up to this size are read in one piece."""
_PIECE: Final = 1 << 20
_SPARSE: Final = 1 << 20
"""Files from this size on are looked at for holes."""
_WHITEOUT_MODE: Final = 0o600
_GONE: Final = (errno.ENOENT, errno.ESTALE)
_NO_XATTRS: Final = (errno.EOPNOTSUPP, errno.ENODATA)


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


def pack(tree: Path, sink: Sink, *, exclude: Collection[bytes] = ()) -> LayerContent:
    """Write the layer that an overlay upper directory is; blocking.

    Parameters
    ----------
    tree
        The upper directory. Its own attributes are not part of the layer, as with Docker.
    sink
        Gets the uncompressed stream, in pieces of up to 1 MiB. Each is a `bytes` of its own that the sink may keep.
    exclude
        Paths relative to the tree, without leading slash, that are left out, with everything below them.

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
    """
    writer = TarWriter(sink)
    packer = _Packer(writer, frozenset(exclude))
    try:
        root = os.open(tree, _DIRECTORY)
    except OSError as error:
        raise TreeReadError(f"{tree} cannot be read: {error.strerror}") from error
    try:
        packer.children(root, b"")
    finally:
        os.close(root)
    writer.close()
    return packer.content()


class _Packer:
    """One packing of a tree."""

    def __init__(self, writer: TarWriter, exclude: frozenset[bytes]) -> None:
        self._writer = writer
        self._exclude = exclude
        self._notes = Notes()
        self._links: dict[tuple[int, int], bytes] = {}
        """First path of each file of several links."""
        self._entries = 0
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

    def children(self, directory: int, path: bytes) -> None:
        """Pack what is in an open directory."""
        prefix = path + b"/" if path else b""
        try:
            with os.scandir(directory) as entries:
                names = sorted([(os.fsencode(entry.name), entry.is_file(follow_symlinks=False)) for entry in entries])
        except OSError as error:
            raise _failed(path, error) from error
        for name, regular in names:
            inner = prefix + name
            if inner in self._exclude:
                continue
            if name.startswith(WHITEOUT_PREFIX):
                raise UnsupportedTreeError(
                    f"{show(inner)}: a layer archive cannot hold a name that starts with .wh., which means a deletion"
                )
            try:
                if regular:
                    self._file(directory, name, inner)
                else:
                    self._other(directory, name, inner)
            except OSError as error:
                if error.errno in _GONE:
                    continue
                raise _failed(inner, error) from error

    def _file(self, directory: int, name: bytes, path: bytes) -> None:
        try:
            descriptor = os.open(name, _FILE, dir_fd=directory)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                # It has become something else since the directory was listed.
                self._other(directory, name, path)
                return
            raise
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                self._other(directory, name, path)
                return
            if status.st_nlink > 1 and self._linked(status, path):
                return
            size = status.st_size
            xattrs = self._xattrs(descriptor, path, regular=True, directory=False)
            content = self._read_small(descriptor, size, path) if size <= _SMALL else None
            self._entry(path, b"0", status, size=size, xattrs=xattrs)
            self._tree_size += size
            if content is None:
                self._copy(descriptor, status, path)
            elif content:
                self._writer.small(content)
        finally:
            os.close(descriptor)

    def _read_small(self, descriptor: int, size: int, path: bytes) -> bytes:
        if not size:
            return b""
        content = os.read(descriptor, size)
        while len(content) < size:
            piece = os.read(descriptor, size - len(content))
            if not piece:
                raise _shorter(path)
            content += piece
        return content

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
        self._writer.pad(size)

    def _other(self, directory: int, name: bytes, path: bytes) -> None:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            self._directory(directory, name, path)
        elif kind == stat.S_IFCHR and status.st_rdev == 0:
            self._whiteout(path)
        elif kind == stat.S_IFSOCK:
            self._notes.add(f"{show(path)}: a socket, which no archive can hold, skipped")
        elif kind == stat.S_IFREG:
            raise TreeChangedError(f"{show(path)} was replaced while it was read")
        elif not (status.st_nlink > 1 and self._linked(status, path)):
            self._special(directory, name, path, status)

    def _special(self, directory: int, name: bytes, path: bytes, status: os.stat_result) -> None:
        held = b"/proc/self/fd/%d/%s" % (directory, name)
        xattrs = self._xattrs(held, path, regular=False, directory=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            link = os.readlink(name, dir_fd=directory)
            self._entry(path, b"2", status, link=link, xattrs=xattrs)
        elif kind == stat.S_IFIFO:
            self._entry(path, b"6", status, xattrs=xattrs)
        else:
            typeflag = b"3" if kind == stat.S_IFCHR else b"4"
            self._entry(path, typeflag, status, device=status.st_rdev, xattrs=xattrs)

    def _directory(self, directory: int, name: bytes, path: bytes) -> None:
        descriptor = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            status = os.fstat(descriptor)
            xattrs = self._xattrs(descriptor, path, regular=False, directory=True)
            self._entry(path + b"/", b"5", status, xattrs=xattrs)
            if self._opaque and self._opaque[-1] == path:
                self._entries += 1
                self._writer.entry(path + b"/" + OPAQUE_MARKER, b"0", mode=_WHITEOUT_MODE)
            self.children(descriptor, path)
        finally:
            os.close(descriptor)

    def _whiteout(self, path: bytes) -> None:
        parent, slash, name = path.rpartition(b"/")
        self._entries += 1
        self._whiteouts.append(path)
        self._writer.entry(parent + slash + WHITEOUT_PREFIX + name, b"0", mode=_WHITEOUT_MODE)

    def _linked(self, status: os.stat_result, path: bytes) -> bool:
        """Write a hard link where the file is in the archive already."""
        first = self._links.setdefault((status.st_dev, status.st_ino), path)
        if first is path:
            return False
        self._entry(path, b"1", status, link=first)
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
        self._entries += 1
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

    def _xattrs(self, target: int | bytes, path: bytes, *, regular: bool, directory: bool) -> dict[bytes, bytes] | None:
        try:
            names = os.listxattr(target, follow_symlinks=isinstance(target, int))
        except OSError as error:
            if error.errno in _NO_XATTRS:
                return None
            raise
        if not names:
            return None
        kept: dict[bytes, bytes] = {}
        for text in names:
            name = os.fsencode(text)
            if name.startswith(OVERLAY_PREFIX):
                self._overlay_xattr(target, name, path, directory=directory)
            elif is_layer_xattr(name) and xattr_fits(name, regular=regular, directory=directory):
                kept[name] = os.getxattr(target, name, follow_symlinks=isinstance(target, int))
            elif name not in LOCAL_XATTRS:
                self._notes.add(f"{show(path)}: the attribute {show(name)} is not one that a layer carries, skipped")
        return kept

    def _overlay_xattr(self, target: int | bytes, name: bytes, path: bytes, *, directory: bool) -> None:
        if name in _ELSEWHERE:
            raise UnsupportedTreeError(
                f"{show(path)} has the attribute {show(name)}: overlayfs keeps a part of it elsewhere; "
                "mount without redirect_dir and metacopy"
            )
        if name == os.fsencode(OPAQUE_XATTR) and directory and os.getxattr(target, name) == OPAQUE_VALUE:
            self._opaque.append(path)


_ELSEWHERE: Final = tuple(OVERLAY_PREFIX + name for name in (b"redirect", b"metacopy", b"whiteout"))
"""overlayfs's attributes of what is whole only together with the layers below."""


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
