"""The way from a tree's root down to where the last entry went, kept open.

Every directory is opened from its parent's descriptor with O_NOFOLLOW. Where the policy lets an entry lie below a
symbolic link, the link is read and its target walked the same way, from the tree's root if it is absolute and never up
from there: as in a chroot whose root is the tree. So nothing leads out of it, and no path is ever too long.

The directories on the way stay open, so that an archive in the usual order costs no more than one look-up per entry. Of
a deep tree only the innermost are open: the others are found again by their children's `..`, which is safe where nobody
else can move directories about.
"""

import errno
import os
from typing import Final

from services.common.archive.errors import ArchiveError, TreeWriteError, UnsafeArchiveError
from services.common.archive.notes import show
from services.common.archive.policy import ArchivePolicy
from services.common.descent import DIRECTORY

__all__ = ["Way", "refused"]


_NOT_A_DIRECTORY: Final = (errno.ENOTDIR, errno.ELOOP)
_MOST_OPEN: Final = 48
"""Directories that are open at a time."""

_IMPLIED_MODE: Final = 0o755
_IMPLIED_TIME: Final = 0
"""Time of directories that the archive does not mention: the same wherever and whenever it is unpacked."""


def refused(path: bytes, error: OSError) -> TreeWriteError:
    """Return the error about something that the file system does not take."""
    return TreeWriteError(f"{show(path)} cannot be made: {error.strerror}")


class _Open:
    """A directory on the way."""

    __slots__ = ("descriptor", "mtime", "name")

    def __init__(self, name: bytes, descriptor: int, mtime: int) -> None:
        self.name = name
        self.descriptor = descriptor
        """-1 while it is not open; the last one always is."""
        self.mtime = mtime
        """The time it must have when it is left, in nanoseconds: what is made inside changes it."""


class _Steps:
    """The names that are still to be walked, those of links that were met in between among them."""

    def __init__(self, path: bytes, *, links: int) -> None:
        self._names = path.split(b"/")[::-1] if path else []
        self._given = len(self._names)
        self._links = links

    def __bool__(self) -> bool:
        return bool(self._names)

    def take(self) -> tuple[bytes, bool]:
        """Return the next name, and whether it is one of the path itself, not of a link's target."""
        name = self._names.pop()
        given = len(self._names) < self._given
        self._given = min(self._given, len(self._names))
        return name, given

    def follow(self, name: bytes, directory: int) -> bytes | None:
        """Put the target of a link before what is left, and return it; None if it is no link, or one too many."""
        try:
            target = os.readlink(name, dir_fd=directory)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return None
            raise
        if not self._links:
            return None
        self._links -= 1
        self._names += [part for part in reversed(target.split(b"/")) if part not in (b"", b".")]
        return target


class Way:
    """The way to the directory of the last entry.

    Parameters
    ----------
    root
        Descriptor of the tree's root, which stays the caller's.
    policy
        How many links may lead to an entry.
    """

    def __init__(self, root: int, policy: ArchivePolicy) -> None:
        self._root = root
        self._policy = policy
        self._way: list[_Open] = []
        self._path: bytes | None = b""
        """The way as a path; None while nobody has asked for it."""
        self.descriptor = root
        """The directory that the way has come to."""

    @property
    def path(self) -> bytes:
        """The way as a path without links."""
        if self._path is None:
            self._path = b"/".join([opened.name for opened in self._way])
        return self._path

    def close(self) -> None:
        """Close what is open."""
        while self._way:
            descriptor = self._way.pop().descriptor
            if descriptor >= 0:
                os.close(descriptor)

    def enter(self, path: bytes) -> tuple[int, bytes]:
        """Return the descriptor of a path's parent, made if it is missing, and the name."""
        parent, _, name = path.rpartition(b"/")
        if parent != self._path:
            self.walk_to(parent)
        return self.descriptor, name

    def push(self, name: bytes, descriptor: int, mtime: int) -> None:
        """Go on into a directory below the last one, whose descriptor becomes the way's."""
        if self._path is not None:
            self._path = self._path + b"/" + name if self._path else name
        self._way.append(_Open(name, descriptor, mtime))
        self.descriptor = descriptor
        if len(self._way) > _MOST_OPEN and (outer := self._way[-_MOST_OPEN - 1]).descriptor >= 0:
            os.close(outer.descriptor)
            outer.descriptor = -1

    def walk_to(self, path: bytes) -> None:
        """Go to a directory, which may be the root, made if it is missing.

        Raises
        ------
        UnsafeArchiveError
            Something on the way is no directory, or a link that the policy does not take or that leads nowhere.
        """
        steps = _Steps(self._rest_of(path), links=self._policy.most_links)
        link = b""
        while steps:
            name, given = steps.take()
            if name == b"..":
                self.leave(max(0, len(self._way) - 1))
                continue
            try:
                descriptor, mtime = self._open(name, make=given)
            except OSError as error:
                if error.errno not in _NOT_A_DIRECTORY:
                    raise self._missing(name, link, error, given=given) from error
            else:
                self.push(name, descriptor, mtime)
                continue
            target = steps.follow(name, self.descriptor)
            link = self._below(name) if given else link
            if target is None:
                raise self._no_directory(name)
            if target.startswith(b"/"):
                self.leave(0)

    def _rest_of(self, path: bytes) -> bytes:
        """Leave what is not on the way to a path, and return what is left of it."""
        if (rest := self._beyond(path)) is not None:
            return rest
        names = path.split(b"/") if path else []
        common = 0
        for opened, name in zip(self._way, names, strict=False):
            if opened.name != name:
                break
            common += 1
        self.leave(common)
        return b"/".join(names[common:])

    def _open(self, name: bytes, *, make: bool) -> tuple[int, int]:
        """Open a directory below the last one; return its descriptor and time."""
        try:
            descriptor = os.open(name, DIRECTORY, dir_fd=self.descriptor)
        except FileNotFoundError:
            if not make:
                raise
            os.mkdir(name, 0o700, dir_fd=self.descriptor)
            descriptor = os.open(name, DIRECTORY, dir_fd=self.descriptor)
            os.fchown(descriptor, 0, 0)
            os.fchmod(descriptor, _IMPLIED_MODE)
            return descriptor, _IMPLIED_TIME
        return descriptor, os.fstat(descriptor).st_mtime_ns

    def _below(self, name: bytes) -> bytes:
        return self.path + b"/" + name if self.path else name

    def _no_directory(self, name: bytes) -> UnsafeArchiveError:
        return UnsafeArchiveError(f"{show(self._below(name))} is no directory, but the archive has something below it")

    def _missing(self, name: bytes, link: bytes, error: OSError, *, given: bool) -> ArchiveError:
        if given or error.errno != errno.ENOENT:
            return refused(self._below(name), error)
        return UnsafeArchiveError(
            f"{show(link)} is no directory, but the archive has something below it: the link leads to "
            f"{show(self._below(name))}, which this layer does not hold"
        )

    def leave(self, depth: int) -> None:
        """Go back up until so many directories are on the way, and give each that is left its time."""
        if len(self._way) == depth:
            return
        while len(self._way) > depth:
            opened = self._way.pop()
            try:
                if self._way and self._way[-1].descriptor < 0:
                    self._way[-1].descriptor = os.open("..", DIRECTORY, dir_fd=opened.descriptor)
                os.utime(opened.descriptor, ns=(opened.mtime, opened.mtime))
            except OSError as error:
                raise refused(opened.name, error) from error
            finally:
                os.close(opened.descriptor)
        self._path = None if self._way else b""
        self.descriptor = self._way[-1].descriptor if self._way else self._root

    def find(self, path: bytes) -> int | None:
        """Return a new descriptor of a directory that exists, by links where the policy takes them."""
        return self._look_up(path, links=self._policy.most_links)

    def find_itself(self, path: bytes) -> int | None:
        """Return a new descriptor of a directory that exists, by no link."""
        return self._look_up(path, links=0)

    def _look_up(self, path: bytes, *, links: int) -> int | None:
        descriptor, depth, rest = self._nearest(path)
        steps = _Steps(rest, links=links)
        try:
            while steps:
                name, _ = steps.take()
                if name == b".." and not depth:
                    continue
                try:
                    following = os.open(name, DIRECTORY, dir_fd=descriptor)
                except OSError as error:
                    target = steps.follow(name, descriptor) if error.errno in _NOT_A_DIRECTORY else None
                    if target is None:
                        raise
                    if not target.startswith(b"/"):
                        continue
                    following, depth = os.dup(self._root), 0
                else:
                    depth += -1 if name == b".." else 1
                os.close(descriptor)
                descriptor = following
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.ENOENT, *_NOT_A_DIRECTORY):
                return None
            raise refused(path, error) from error
        return descriptor

    def _nearest(self, path: bytes) -> tuple[int, int, bytes]:
        """Return a new descriptor of the way's end or the root, its depth, and what is left of a path from there."""
        if (rest := self._beyond(path)) is not None:
            return os.dup(self.descriptor), len(self._way), rest
        return os.dup(self._root), 0, path

    def _beyond(self, path: bytes) -> bytes | None:
        """Return what is left of a path from the way's end; None if that is not on it."""
        here = self.path
        if here and path.startswith(here) and path[len(here) : len(here) + 1] in (b"", b"/"):
            return path[len(here) + 1 :]
        return None
