"""A layer's tree on a local file system, built without ever following a link.

Every directory on the way to an entry is opened from its parent's descriptor with O_NOFOLLOW, and every attribute is
set on a held descriptor or with no following. The descriptors on the way to the last entry are kept, so that an archive
in the usual order costs no more than one look-up per entry.
"""

import errno
import os
import stat
from types import TracebackType
from typing import Final, Self

from services.common.archive.errors import MalformedArchiveError, TreeWriteError, UnsafeArchiveError
from services.common.archive.notes import Notes, show
from services.common.archive.ondisk import DeletionEncoding
from services.common.archive.reader import Entry, Kind, TarReader
from services.common.archive.xattrs import CAPABILITY

__all__ = ["DiskTree"]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_A_DIRECTORY: Final = (errno.ENOTDIR, errno.ELOOP)

_IMPLIED_MODE: Final = 0o755
_IMPLIED_TIME: Final = 0
"""Time of directories that the archive does not mention: the same wherever and whenever it is unpacked."""

_WHOLE: Final = 256 << 10
"""Files up to this size are written in one piece."""


class _Open:
    """An open directory on the way to the last entry."""

    __slots__ = ("descriptor", "mtime", "name")

    def __init__(self, name: bytes, descriptor: int, mtime: int) -> None:
        self.name = name
        self.descriptor = descriptor
        self.mtime = mtime
        """The time it must have when it is left, in nanoseconds: what is made inside changes it."""


class DiskTree:
    """A context manager that fills an empty directory with a layer.

    Parameters
    ----------
    root
        Descriptor of the directory, which stays the caller's.
    deletions
        How deletions are kept in the tree.
    notes
        Gets what the file system cannot keep and does no harm.
    """

    def __init__(self, root: int, *, deletions: DeletionEncoding, notes: Notes) -> None:
        self._root = root
        self._deletions = deletions
        self._notes = notes
        self._path: list[_Open] = []
        self._parent = b""
        self._descriptor = root
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._path:
            os.close(self._path.pop().descriptor)

    def directory(self, path: bytes, entry: Entry) -> None:
        """Make a directory, or give one that exists new attributes."""
        parent, name = self._enter(path)
        try:
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    self._remove(parent, name)
                    os.mkdir(name, 0o700, dir_fd=parent)
            descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        except OSError as error:
            raise _refused(path, error) from error
        # What comes next is likely to lie inside.
        self._path.append(_Open(name, descriptor, entry.mtime))
        self._parent = path
        self._descriptor = descriptor
        try:
            os.fchown(descriptor, entry.uid, entry.gid)
            if entry.xattrs:
                self._set_xattrs(descriptor, path, entry)
            os.fchmod(descriptor, entry.mode)
        except OSError as error:
            raise _refused(path, error) from error

    def file(self, path: bytes, entry: Entry, data: TarReader) -> None:
        """Make a file in place of what is there."""
        parent, name = self._enter(path)
        try:
            try:
                descriptor = os.open(name, _CREATE, 0o600, dir_fd=parent)
            except FileExistsError:
                self._remove(parent, name)
                descriptor = os.open(name, _CREATE, 0o600, dir_fd=parent)
            try:
                if entry.extents is not None:
                    _write_sparse(descriptor, entry, data)
                elif 0 < entry.size <= _WHOLE:
                    _write_all(descriptor, data.whole())
                elif entry.size:
                    _write_long(descriptor, data)
                # In this order: a change of owner clears setuid and capabilities, and both change the times.
                os.fchown(descriptor, entry.uid, entry.gid)
                if entry.xattrs:
                    self._set_xattrs(descriptor, path, entry)
                os.fchmod(descriptor, entry.mode)
                os.utime(descriptor, ns=(entry.mtime, entry.mtime))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _refused(path, error) from error
        self.size += entry.size

    def symlink(self, path: bytes, entry: Entry) -> None:
        """Make a symbolic link in place of what is there, its target as it is written."""
        parent, name = self._enter(path)
        try:
            try:
                os.symlink(entry.link, name, dir_fd=parent)
            except FileExistsError:
                self._remove(parent, name)
                os.symlink(entry.link, name, dir_fd=parent)
            self._finish_special(parent, name, path, entry)
        except OSError as error:
            raise _refused(path, error) from error
        self.size += len(entry.link)

    def node(self, path: bytes, entry: Entry) -> None:
        """Make a device or fifo in place of what is there."""
        parent, name = self._enter(path)
        mode = _NODE_TYPES[entry.kind] | 0o600
        device = 0 if entry.kind is Kind.FIFO else os.makedev(entry.major, entry.minor)
        try:
            try:
                os.mknod(name, mode, device, dir_fd=parent)
            except FileExistsError:
                self._remove(parent, name)
                os.mknod(name, mode, device, dir_fd=parent)
            self._finish_special(parent, name, path, entry)
        except OSError as error:
            raise _refused(path, error) from error

    def link(self, path: bytes, target: bytes) -> bool:
        """Make a hard link in place of what is there; return False where the target is absent."""
        target_parent, _, target_name = target.rpartition(b"/")
        # The target's directory is opened apart, so that the way to the last entry stays open.
        source = self._find(target_parent)
        if source is None:
            return False
        try:
            try:
                target_mode = os.stat(target_name, dir_fd=source, follow_symlinks=False).st_mode
            except FileNotFoundError:
                return False
            if stat.S_ISDIR(target_mode):
                raise UnsafeArchiveError(f"{show(path)} is a hard link to the directory {show(target)}")
            parent, name = self._enter(path)
            try:
                self._link(source, target_name, parent, name)
            except OSError as error:
                raise _refused(path, error) from error
        finally:
            os.close(source)
        return True

    def vacate(self, path: bytes) -> None:
        """Remove what is there, if anything, but make its parents."""
        parent, name = self._enter(path)
        try:
            self._remove(parent, name)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _refused(path, error) from error

    def imply(self, path: bytes) -> None:
        """Make a directory, which may be the root, unless it exists."""
        self._walk_to(path)

    def is_directory(self, path: bytes) -> bool | None:
        """Tell whether a path is a directory; None where nothing is there."""
        if not path:
            return True
        parent, _, name = path.rpartition(b"/")
        descriptor = self._find(parent)
        if descriptor is None:
            return None
        try:
            return stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return None
        finally:
            os.close(descriptor)

    def delete(self, path: bytes) -> None:
        """Record that the layers below lose a path."""
        parent, name = self._enter(path)
        try:
            self._deletions.delete(parent, name)
        except OSError as error:
            raise _refused(path, error) from error

    def make_opaque(self, path: bytes) -> None:
        """Record that a directory hides what the layers below hold there."""
        self._walk_to(path)
        try:
            self._deletions.make_opaque(self._descriptor)
        except OSError as error:
            raise _refused(path, error) from error

    def finish(self) -> None:
        """Leave every directory, which gives it its time."""
        self._leave(0)

    def _enter(self, path: bytes) -> tuple[int, bytes]:
        """Return the descriptor of a path's parent, made if it is missing, and the name."""
        parent, _, name = path.rpartition(b"/")
        if parent != self._parent:
            self._walk_to(parent)
        return self._descriptor, name

    def _walk_to(self, path: bytes) -> None:
        names = path.split(b"/") if path else []
        common = 0
        for opened, name in zip(self._path, names, strict=False):
            if opened.name != name:
                break
            common += 1
        self._leave(common)
        for depth in range(common, len(names)):
            here = b"/".join(names[: depth + 1])
            descriptor, mtime = self._open_directory(names[depth], here)
            self._path.append(_Open(names[depth], descriptor, mtime))
            self._parent = here
            self._descriptor = descriptor

    def _open_directory(self, name: bytes, path: bytes) -> tuple[int, int]:
        """Open a directory below the current one, made if it is missing; return its descriptor and time."""
        try:
            try:
                descriptor = os.open(name, _DIRECTORY, dir_fd=self._descriptor)
            except FileNotFoundError:
                os.mkdir(name, 0o700, dir_fd=self._descriptor)
                descriptor = os.open(name, _DIRECTORY, dir_fd=self._descriptor)
                os.fchown(descriptor, 0, 0)
                os.fchmod(descriptor, _IMPLIED_MODE)
                return descriptor, _IMPLIED_TIME
        except OSError as error:
            if error.errno in _NOT_A_DIRECTORY:
                raise UnsafeArchiveError(
                    f"{show(path)} is no directory, but the archive has something below it"
                ) from None
            raise _refused(path, error) from error
        return descriptor, os.fstat(descriptor).st_mtime_ns

    def _leave(self, depth: int) -> None:
        """Go back up until so many directories are open, and give each that is left its time."""
        if len(self._path) == depth:
            return
        while len(self._path) > depth:
            opened = self._path.pop()
            try:
                os.utime(opened.descriptor, ns=(opened.mtime, opened.mtime))
            except OSError as error:
                raise _refused(opened.name, error) from error
            finally:
                os.close(opened.descriptor)
        self._parent = b"/".join([opened.name for opened in self._path])
        self._descriptor = self._path[-1].descriptor if self._path else self._root

    def _find(self, path: bytes) -> int | None:
        """Return a new descriptor of a directory that exists, without making anything."""
        if path == self._parent:
            return os.dup(self._descriptor)
        descriptor = os.dup(self._root)
        for name in path.split(b"/") if path else ():
            try:
                following = os.open(name, _DIRECTORY, dir_fd=descriptor)
            except OSError as error:
                if error.errno in (errno.ENOENT, *_NOT_A_DIRECTORY):
                    return None
                raise _refused(path, error) from error
            finally:
                os.close(descriptor)
            descriptor = following
        return descriptor

    def _link(self, source: int, target: bytes, parent: int, name: bytes) -> None:
        try:
            os.link(target, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
            wanted = os.stat(target, dir_fd=source, follow_symlinks=False)
            if (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino):
                return
            self._remove(parent, name)
            os.link(target, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def _finish_special(self, parent: int, name: bytes, path: bytes, entry: Entry) -> None:
        """Set the attributes of what cannot be opened."""
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.xattrs or entry.kind is not Kind.SYMLINK:
            handle = os.open(name, _HANDLE, dir_fd=parent)
            try:
                # The only way to an inode that is held but not open for reading (proc(5)).
                held = b"/proc/self/fd/%d" % handle
                if entry.xattrs:
                    self._set_xattrs(held, path, entry)
                if entry.kind is not Kind.SYMLINK:
                    os.chmod(held, entry.mode)
            finally:
                os.close(handle)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _set_xattrs(self, target: int | bytes, path: bytes, entry: Entry) -> None:
        for name, value in entry.xattrs.items():
            self._set_xattr(target, path, name, value)

    def _set_xattr(self, target: int | bytes, path: bytes, name: bytes, value: bytes) -> None:
        try:
            os.setxattr(target, name, value)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP and name != CAPABILITY:
                self._notes.add(f"{show(path)}: the file system cannot hold the attribute {show(name)}")
            elif error.errno == errno.EINVAL:
                raise MalformedArchiveError(f"{show(path)}: the kernel refuses the value of {show(name)}") from error
            else:
                raise

    def _remove(self, parent: int, name: bytes) -> None:
        """Remove whatever has a name, with everything below it."""
        there = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(there.st_mode):
            if there.st_nlink == 1:
                self.size -= there.st_size
            os.unlink(name, dir_fd=parent)
            return
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            for inner in os.listdir(descriptor):
                self._remove(descriptor, os.fsencode(inner))
        finally:
            os.close(descriptor)
        os.rmdir(name, dir_fd=parent)


_NODE_TYPES: Final = {Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}


def _write_all(descriptor: int, view: memoryview) -> None:
    written = os.write(descriptor, view)
    while written < len(view):
        written += os.write(descriptor, view[written:])


def _write_long(descriptor: int, data: TarReader) -> None:
    while (view := data.some()) is not None:
        _write_all(descriptor, view)


def _write_sparse(descriptor: int, entry: Entry, data: TarReader) -> None:
    """Write the data where they belong and leave the holes."""
    os.ftruncate(descriptor, entry.size)
    extents = iter(entry.extents or ())
    position = left = 0
    while (view := data.some()) is not None:
        while view:
            if not left:
                position, left = next(extents)
            count = os.pwrite(descriptor, view[:left], position)
            position += count
            left -= count
            view = view[count:]


def _refused(path: bytes, error: OSError) -> TreeWriteError:
    return TreeWriteError(f"{show(path)} cannot be made: {error.strerror}")
