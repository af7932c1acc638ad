"""One tree of several layers: what an overlay of them shows.

The topmost layer is put into the tree first, and each one below adds what those above leave room for. So nothing is
made in vain, and nothing is kept in memory of what is made but the names of deletions, which layers list themselves.

A file of the tree is a hard link to that of its layer: nobody writes into a repository but its publisher, who never
changes a layer, and so the link costs no bytes and the page cache has the file once, however many images show it. Where
the permissions have to be others, it is a copy, which is a reflink where the file system can make one
(copy_file_range(2)).
"""

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.common.archive.ondisk import is_whiteout
from services.common.archive.xattrs import is_layer_xattr
from services.common.descent import Descent
from services.common.threads import Stop
from services.repository.flat.differences import Difference, Differences, DirectoryAttributes
from services.repository.flat.entries import DROPPED_NAMES
from services.repository.flat.modes import Modes

__all__ = ["StackedLayer", "stack"]

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE: Final = 16 << 20
"""Bytes that are copied between two looks at whether anybody still waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedLayer:
    """A layer that is unpacked."""

    tree: Path
    """Its files."""
    whiteouts: Sequence[bytes]
    """Paths that it deletes from the layers below."""
    opaque: Sequence[bytes]
    """Directories of it that hide those of the layers below; the root is the empty path."""


def stack(target: Path, layers: Sequence[StackedLayer], *, modes: Modes, differences: Differences, stop: Stop) -> int:
    """Put layers into an empty directory, which keeps its own attributes; return the number of entries. Blocks.

    Parameters
    ----------
    target
        The directory, on the file system of the layers.
    layers
        Base first.
    modes
        How permissions are mended.
    differences
        Gets what people must know.
    stop
        Ends the work when somebody sets it.

    Raises
    ------
    OSError
        A layer cannot be read, or the file system refused.
    InterruptedError
        It was to stop.
    """
    return _Stacking(target, modes, differences, stop).run(reversed(layers))


class _Level:
    """A directory of a layer that is being put into the tree."""

    __slots__ = ("directories", "made", "source", "target")

    def __init__(self, *, source: os.stat_result, target: os.stat_result, made: bool) -> None:
        self.source = source
        """Its status in the layer."""
        self.target = target
        """Its status in the tree, before anything is put into it."""
        self.made = made
        """Whether the tree did not have it."""
        self.directories: list[bytes] = []
        """Directories in it that have not been entered yet."""


class _Stacking:
    def __init__(self, target: Path, modes: Modes, differences: Differences, stop: Stop) -> None:
        self._root = target
        self._modes = modes
        self._differences = differences
        self._stop = stop
        self._closed: set[bytes] = set()
        """Paths at which nothing that lower layers have is shown."""
        self._opaque: set[bytes] = set()
        """Directories in which nothing that lower layers have is shown."""
        self._compared: set[bytes] = set()
        """Directories that differences have been told of."""
        self._copies: dict[tuple[int, int], bytes] = {}
        """Copies in the tree of files with several names, by device and inode."""
        self._entries = 0

    def run(self, layers: Iterable[StackedLayer]) -> int:
        for layer in layers:
            if b"" in self._opaque:
                break
            with Descent.into(layer.tree) as source, Descent.into(self._root) as target:
                self._add(source, target)
            self._closed.update(layer.whiteouts)
            self._opaque.update(layer.opaque)
        return self._entries

    def _add(self, source: Descent, target: Descent) -> None:
        """Add what a layer has."""
        status = os.fstat(target.descriptor)
        levels = [_Level(source=os.fstat(source.descriptor), target=status, made=False)]
        self._add_files(source, target, levels[-1])
        while True:
            level = levels[-1]
            if level.directories:
                inner = self._enter(level.directories.pop(), source, target)
                if inner is not None:
                    levels.append(inner)
                    self._add_files(source, target, inner)
                continue
            if level.made:
                self._finish(source.descriptor, target.descriptor, level.source)
            else:
                _set_time(target.descriptor, level.target)
            if not source.depth:
                return
            levels.pop()
            source.leave()
            target.leave()

    def _add_files(self, source: Descent, target: Descent, level: _Level) -> None:
        """Add everything in a directory but the directories, and take note of these."""
        self._stop.check()
        with os.scandir(source.descriptor) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if self._is_left_out(name, source):
                    continue
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    level.directories.append(name)
                elif not is_whiteout(status):
                    self._add_file(name, status, source, target)

    def _is_left_out(self, name: bytes, source: Descent) -> bool:
        if self._closed and source.path(name) in self._closed:
            return True
        if name in DROPPED_NAMES:
            path = source.path(name)
            self._closed.add(path)
            self._differences.add(Difference.DROPPED_NAME, path)
            return True
        return False

    def _add_file(self, name: bytes, status: os.stat_result, source: Descent, target: Descent) -> None:
        here, there = source.descriptor, target.descriptor
        try:
            mode = status.st_mode
            if stat.S_ISREG(mode) and self._modes.of_file(mode) != mode:
                self._copy(name, status, source, there)
            else:
                self._link(name, status, source, there)
        except FileExistsError:
            self._hide(name, status, source, there)
            return
        self._entries += 1
        if stat.S_ISLNK(mode):
            self._differences.link(source.path(name), os.readlink(name, dir_fd=here))

    def _hide(self, name: bytes, status: os.stat_result, source: Descent, target: int) -> None:
        """Take note of what something in the tree hides that is no directory."""
        there = os.stat(name, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISDIR(there.st_mode):
            return
        path = source.path(name)
        self._closed.add(path)  # with what the layers below have there the directory is not merged
        if stat.S_ISLNK(status.st_mode):
            descriptor = os.open(name, _READ | os.O_DIRECTORY, dir_fd=target)
            try:
                self._differences.hides_link(path, _attributes(descriptor))
            finally:
                os.close(descriptor)

    def _enter(self, name: bytes, source: Descent, target: Descent) -> _Level | None:
        """Go into a directory of the layer and that of the tree, which is made if nothing is there."""
        made = True
        try:
            os.mkdir(name, 0o700, dir_fd=target.descriptor)
        except FileExistsError:
            made = False
            if not stat.S_ISDIR(os.stat(name, dir_fd=target.descriptor, follow_symlinks=False).st_mode):
                return None
            if self._opaque and source.path(name) in self._opaque:
                return None
        level = _Level(source=source.enter(name), target=target.enter(name), made=made)
        if made:
            self._entries += 1
        else:
            self._compare(source, target)
        return level

    def _compare(self, source: Descent, target: Descent) -> None:
        """Compare a directory of the tree with what the topmost layer that has an entry for it says of it."""
        shown = _attributes(target.descriptor)
        if not shown.may_be_implied or (path := source.path()) in self._compared:
            return
        below = _attributes(source.descriptor)
        if not below.may_be_implied:
            self._compared.add(path)
            self._differences.hides_directory(path, shown, below)

    def _link(self, name: bytes, status: os.stat_result, source: Descent, target: int) -> None:
        try:
            os.link(name, name, src_dir_fd=source.descriptor, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            # So many names a file can have: on ext4, 65,000.
            if error.errno != errno.EMLINK or not stat.S_ISREG(status.st_mode):
                raise
            self._copy(name, status, source, target)

    def _copy(self, name: bytes, status: os.stat_result, source: Descent, target: int) -> None:
        """Copy a file and give it the mode that it is to have; its names in the tree are those of one file again."""
        inode = status.st_dev, status.st_ino
        if (copy := self._copies.get(inode)) is not None:
            with Descent.into(self._root) as root:
                os.link(copy, name, src_dir_fd=root.descriptor, dst_dir_fd=target, follow_symlinks=False)
            return
        reader = os.open(name, _READ, dir_fd=source.descriptor)
        try:
            writer = os.open(name, _CREATE, 0o600, dir_fd=target)
            try:
                self._copy_data(reader, writer, status.st_size)
                _copy_attributes(reader, writer, status, self._modes.of_file(status.st_mode))
            finally:
                os.close(writer)
        finally:
            os.close(reader)
        if status.st_nlink > 1:
            self._copies[inode] = source.path(name)

    def _copy_data(self, reader: int, writer: int, size: int) -> None:
        """Copy what is no hole: one can be larger than the disk."""
        os.ftruncate(writer, size)
        position = 0
        while position < size:
            try:
                position = os.lseek(reader, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # a hole up to the end
                    return
                raise
            end = os.lseek(reader, position, os.SEEK_HOLE)
            while position < end:
                self._stop.check()
                count = os.copy_file_range(reader, writer, min(_PIECE, end - position), position, position)
                if count == 0:
                    raise OSError(errno.EIO, "a file of a layer has become shorter")
                position += count

    def _finish(self, source: int, target: int, status: os.stat_result) -> None:
        """Give a directory that has been made, and filled from its topmost layer, the attributes that it has there."""
        _copy_attributes(source, target, status, self._modes.of_directory(status.st_mode))


def _attributes(directory: int) -> DirectoryAttributes:
    status = os.fstat(directory)
    return DirectoryAttributes(
        permissions=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=status.st_mtime_ns,
        has_xattrs=any(is_layer_xattr(os.fsencode(name)) for name in os.listxattr(directory)),
    )


def _copy_attributes(source: int, target: int, status: os.stat_result, mode: int) -> None:
    # In this order: a change of owner clears setuid and capabilities, and both change the times.
    os.fchown(target, status.st_uid, status.st_gid)
    for name in os.listxattr(source):
        if is_layer_xattr(os.fsencode(name)):
            os.setxattr(target, name, os.getxattr(source, name))
    os.fchmod(target, stat.S_IMODE(mode))
    _set_time(target, status)


def _set_time(target: int, status: os.stat_result) -> None:
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))
