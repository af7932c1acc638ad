"""What a layer changes, seen against what lies below it.

The rules are those by which container engines compare two trees, so that people see what they see elsewhere: a
path is modified if its metadata or content differ (for directories, their sizes and times do not count), a directory is
listed as modified if anything in it is, and of a deleted directory only the directory itself is listed.
"""

import os
import stat
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from services.common.archive.ondisk import is_opaque, is_whiteout
from services.common.descent import Descent
from services.node.errors import UnsupportedError

__all__ = ["Change", "ChangeKind", "changes"]

_PATHS_LIMIT: Final = 512 << 20
"""Most bytes that the paths of all changes may have: each names every directory above it, however deep they are."""


class ChangeKind(IntEnum):
    """Kinds of changes, with the numbers that container engines give them."""

    MODIFY = 0
    ADD = 1
    DELETE = 2


@dataclass(frozen=True, slots=True)
class Change:
    """One changed path."""

    path: bytes
    """Absolute, as seen in the container."""
    kind: ChangeKind


def changes(upper: Path, view: Path | None, *, step: Callable[[], None]) -> list[Change]:
    """Compare a layer's own files with the view of what lies below it. Blocks.

    Parameters
    ----------
    upper
        The layer's files, in the kernel's overlay encoding.
    view
        The union of everything below; None if nothing is.
    step
        Called before each look into the view, which can take its time or hang.

    Returns
    -------
    list of Change
        In byte order.

    Raises
    ------
    UnsupportedError
        The list would be too large to be held.
    """
    with Descent.into(upper) as above, Descent.into(view) if view is not None else nullcontext() as below:
        found = _Comparison(above, below, step).run()
    return sorted(found, key=lambda change: change.path)


class _Level:
    """A directory of the layer that is being compared."""

    __slots__ = ("compared", "hidden", "mark", "modified", "names")

    def __init__(self, names: list[bytes], *, compared: bool, hidden: bool, modified: bool, mark: int) -> None:
        self.names = names
        """What is in it and has not been looked at."""
        self.compared = compared
        """Whether it is one in the view, too."""
        self.hidden = hidden
        """Whether it, or a directory above, hides everything that the view has there."""
        self.modified = modified
        """Whether it differs from the view's itself."""
        self.mark = mark
        """How many changes there were before it."""


class _Comparison:
    """One comparison of two trees, whatever their depth."""

    def __init__(self, upper: Descent, view: Descent | None, step: Callable[[], None]) -> None:
        self._upper = upper
        self._view = view
        self._step = step
        self._found: list[Change] = []
        self._size = 0
        self._levels: list[_Level] = []

    def run(self) -> list[Change]:
        self._begin(compared=self._view is not None, hidden=False, modified=False)
        while True:
            level = self._levels[-1]
            if level.names:
                self._look(level, level.names.pop())
            elif self._upper.depth:
                self._end()
            else:
                return self._found

    def _add(self, kind: ChangeKind, name: bytes | None = None) -> None:
        path = b"/" + self._upper.path(name)
        self._size += len(path)
        if self._size > _PATHS_LIMIT:
            raise UnsupportedError(f"the paths of the changes are longer than {_PATHS_LIMIT} bytes altogether")
        self._found.append(Change(path, kind))

    def _begin(self, *, compared: bool, hidden: bool, modified: bool) -> None:
        """Begin with the directory that has been entered."""
        mark = len(self._found)
        names = [os.fsencode(name) for name in os.listdir(self._upper.descriptor)]
        if self._view is not None and compared and hidden:
            self._step()
            for name in {os.fsencode(name) for name in os.listdir(self._view.descriptor)}.difference(names):
                self._add(ChangeKind.DELETE, name)
        self._levels.append(_Level(names, compared=compared, hidden=hidden, modified=modified, mark=mark))

    def _end(self) -> None:
        """Go back to the directory above."""
        level = self._levels.pop()
        if level.compared and (level.modified or len(self._found) > level.mark):
            self._add(ChangeKind.MODIFY)
        self._upper.leave()
        if self._view is not None and level.compared:
            self._view.leave()

    def _look(self, level: _Level, name: bytes) -> None:
        self._step()
        new = _lstat(name, self._upper.descriptor)
        if new is None:
            # A container may be at work in it.
            return
        below = self._view.descriptor if self._view is not None and level.compared else None
        old = _lstat(name, below) if below is not None else None
        if is_whiteout(new):
            if old is not None:
                self._add(ChangeKind.DELETE, name)
        elif stat.S_ISDIR(new.st_mode):
            self._enter(level, name, new, old)
        elif old is None or below is None:
            self._add(ChangeKind.ADD, name)
        elif _differs(new, old) or _capability(name, self._upper.descriptor) != _capability(name, below):
            self._add(ChangeKind.MODIFY, name)

    def _enter(self, level: _Level, name: bytes, new: os.stat_result, old: os.stat_result | None) -> None:
        compared = old is not None and stat.S_ISDIR(old.st_mode)
        if not compared:
            self._add(ChangeKind.ADD if old is None else ChangeKind.MODIFY, name)
        try:
            self._upper.enter(name)
        except (FileNotFoundError, NotADirectoryError):
            return
        if self._view is not None and compared:
            self._view.enter(name)
        self._begin(
            compared=compared,
            hidden=level.hidden or is_opaque(self._upper.descriptor),
            modified=old is not None and _differs(new, old),
        )


def _differs(new: os.stat_result, old: os.stat_result) -> bool:
    if (new.st_mode, new.st_uid, new.st_gid, new.st_rdev) != (old.st_mode, old.st_uid, old.st_gid, old.st_rdev):
        return True
    return not stat.S_ISDIR(new.st_mode) and (new.st_mtime_ns, new.st_size) != (old.st_mtime_ns, old.st_size)


def _lstat(name: bytes, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _capability(name: bytes, directory: int) -> bytes | None:
    try:
        # There is no other way to an attribute by the descriptor of a directory (proc(5)).
        return os.getxattr(b"/proc/self/fd/%d/%s" % (directory, name), "security.capability", follow_symlinks=False)
    except OSError:
        return None
