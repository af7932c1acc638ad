"""A layer's tree on a local file system, built without the kernel ever following a link.

The way to an entry is walked by `Descent`, and every attribute is set on a held descriptor or with no following.
"""

import errno
import os
import stat
from types import TracebackType
from typing import Final, Self

from services.common.archive.entry import Entry, Kind
from services.common.archive.errors import MalformedArchiveError, UnsafeArchiveError
from services.common.archive.filedata import write_data
from services.common.archive.notes import Notes, show
from services.common.archive.ondisk import DeletionEncoding
from services.common.archive.policy import ArchivePolicy
from services.common.archive.reader import TarReader
from services.common.archive.way import Way, refused
from services.common.archive.xattrs import CAPABILITY
from services.common.descent import DIRECTORY

__all__ = ["DiskTree"]

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class DiskTree:
    """A context manager that fills an empty directory with a layer.

    Parameters
    ----------
    root
        Descriptor of the directory, which stays the caller's.
    deletions
        How deletions are kept in the tree.
    policy
        What the layer's archive may be.
    notes
        Gets what the file system cannot keep and does no harm.
    """

    def __init__(self, root: int, *, deletions: DeletionEncoding, policy: ArchivePolicy, notes: Notes) -> None:
        self._way = Way(root, policy)
        self._deletions = deletions
        self._notes = notes
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._way.close()

    def directory(self, path: bytes, entry: Entry) -> None:
        """Make a directory, or give one that exists new attributes."""
        parent, name = self._way.enter(path)
        try:
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    self._remove(parent, name)
                    os.mkdir(name, 0o700, dir_fd=parent)
            descriptor = os.open(name, DIRECTORY, dir_fd=parent)
        except OSError as error:
            raise refused(path, error) from error
        # What comes next is likely to lie inside.
        self._way.push(name, descriptor, entry.mtime)
        try:
            os.fchown(descriptor, entry.uid, entry.gid)
            if entry.xattrs:
                self._set_xattrs(descriptor, path, entry)
            os.fchmod(descriptor, entry.mode)
        except OSError as error:
            raise refused(path, error) from error

    def file(self, path: bytes, entry: Entry, data: TarReader) -> None:
        """Make a file in place of what is there."""
        parent, name = self._way.enter(path)
        try:
            try:
                descriptor = os.open(name, _CREATE, 0o600, dir_fd=parent)
            except FileExistsError:
                self._remove(parent, name)
                descriptor = os.open(name, _CREATE, 0o600, dir_fd=parent)
            try:
                write_data(descriptor, entry, data)
                # In this order: a change of owner clears setuid and capabilities, and both change the times.
                os.fchown(descriptor, entry.uid, entry.gid)
                if entry.xattrs:
                    self._set_xattrs(descriptor, path, entry)
                os.fchmod(descriptor, entry.mode)
                os.utime(descriptor, ns=(entry.mtime, entry.mtime))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise refused(path, error) from error
        self.size += entry.size

    def symlink(self, path: bytes, entry: Entry) -> None:
        """Make a symbolic link in place of what is there, its target as it is written."""
        parent, name = self._way.enter(path)
        try:
            try:
                os.symlink(entry.link, name, dir_fd=parent)
            except FileExistsError:
                self._remove(parent, name)
                os.symlink(entry.link, name, dir_fd=parent)
            self._finish_special(parent, name, path, entry)
        except OSError as error:
            raise refused(path, error) from error
        self.size += len(entry.link)

    def node(self, path: bytes, entry: Entry) -> None:
        """Make a device or fifo in place of what is there."""
        parent, name = self._way.enter(path)
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
            raise refused(path, error) from error

    def link(self, path: bytes, target: bytes) -> bool:
        """Make a hard link in place of what is there; return False where the target is absent."""
        target_parent, _, target_name = target.rpartition(b"/")
        # The target's directory is opened apart, so that the way to the last entry stays open.
        source = self._way.find(target_parent)
        if source is None:
            return False
        try:
            try:
                target_mode = os.stat(target_name, dir_fd=source, follow_symlinks=False).st_mode
            except FileNotFoundError:
                return False
            if stat.S_ISDIR(target_mode):
                raise UnsafeArchiveError(f"{show(path)} is a hard link to the directory {show(target)}")
            parent, name = self._way.enter(path)
            try:
                self._link(source, target_name, parent, name)
            except OSError as error:
                raise refused(path, error) from error
        finally:
            os.close(source)
        return True

    def vacate(self, path: bytes) -> None:
        """Remove what is there, if anything, but make its parents."""
        parent, name = self._way.enter(path)
        try:
            self._remove(parent, name)
        except FileNotFoundError:
            return
        except OSError as error:
            raise refused(path, error) from error

    def imply(self, path: bytes) -> bytes:
        """Make a directory, which may be the root, unless it exists; return its path without links."""
        self._way.walk_to(path)
        return self._way.path

    def is_directory(self, path: bytes) -> bool | None:
        """Tell whether a path without links is a directory; None where nothing is there."""
        if not path:
            return True
        parent, _, name = path.rpartition(b"/")
        descriptor = self._way.find_itself(parent)
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
        parent, name = self._way.enter(path)
        try:
            self._deletions.delete(parent, name)
        except OSError as error:
            raise refused(path, error) from error

    def make_opaque(self, path: bytes) -> None:
        """Record that a directory hides what the layers below hold there."""
        self._way.walk_to(path)
        try:
            self._deletions.make_opaque(self._way.descriptor)
        except OSError as error:
            raise refused(path, error) from error

    def finish(self) -> None:
        """Leave every directory, which gives it its time."""
        self._way.leave(0)

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
        """Remove whatever has a name, with everything below it, however deep."""
        if not self._remove_leaf(parent, name):
            return
        here = os.open(name, DIRECTORY, dir_fd=parent)
        way: list[tuple[bytes, list[bytes]]] = [(name, self._remove_leaves(here))]
        try:
            while way:
                name, left = way[-1]
                if left:
                    inner = left.pop()
                    following = os.open(inner, DIRECTORY, dir_fd=here)
                    os.close(here)
                    here = following
                    way.append((inner, self._remove_leaves(here)))
                else:
                    way.pop()
                    following = os.open("..", DIRECTORY, dir_fd=here) if way else os.dup(parent)
                    os.close(here)
                    here = following
                    os.rmdir(name, dir_fd=here)
        finally:
            os.close(here)

    def _remove_leaves(self, directory: int) -> list[bytes]:
        """Remove what is no directory, and return the directories."""
        return [name for name in map(os.fsencode, os.listdir(directory)) if self._remove_leaf(directory, name)]

    def _remove_leaf(self, parent: int, name: bytes) -> bool:
        """Remove what has a name, unless it is a directory; return whether it is."""
        there = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(there.st_mode):
            return True
        if there.st_nlink == 1:
            self.size -= there.st_size
        os.unlink(name, dir_fd=parent)
        return False


_NODE_TYPES: Final = {Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}
