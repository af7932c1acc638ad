"""What a layer changes, seen against what lies below it.

The rules are those by which container engines compare two trees, so that people see what they see elsewhere: a
path is modified if its metadata or content differ (for directories, their sizes and times do not count), a directory is
listed as modified if anything in it is, and of a deleted directory only the directory itself is listed.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from services.common.archive.ondisk import is_opaque, is_whiteout

__all__ = ["Change", "ChangeKind", "changes"]


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
    """
    lower = os.fsencode(view) if view is not None else None
    found = list(_compare(os.fsencode(upper), lower, b"", step, hidden=False))
    return sorted(found, key=lambda change: change.path)


def _compare(
    upper: bytes, view: bytes | None, path: bytes, step: Callable[[], None], *, hidden: bool
) -> Iterator[Change]:
    """Compare a directory that both have; `hidden` if an opaque one above hides all of the view's."""
    directory = upper + path
    try:
        with os.scandir(directory) as scan:
            entries = list(scan)
    except FileNotFoundError:
        # A container may be at work in it; but the layer itself has to be there.
        if not path:
            raise
        return
    names = {entry.name for entry in entries}
    hidden = hidden or (bool(path) and is_opaque(directory))
    if view is not None and hidden:
        step()
        for name in os.listdir(view + path):
            if name not in names:
                yield Change(path + b"/" + name, ChangeKind.DELETE)
    for entry in entries:
        step()
        with contextlib.suppress(FileNotFoundError):
            new = entry.stat(follow_symlinks=False)
            yield from _compare_entry(upper, view, path + b"/" + entry.name, new, step, hidden=hidden)


def _compare_entry(
    upper: bytes, view: bytes | None, path: bytes, new: os.stat_result, step: Callable[[], None], *, hidden: bool
) -> Iterator[Change]:
    old = _lstat(view + path) if view is not None else None
    if is_whiteout(new):
        if old is not None:
            yield Change(path, ChangeKind.DELETE)
        return
    if not stat.S_ISDIR(new.st_mode):
        if old is None:
            yield Change(path, ChangeKind.ADD)
        elif _differs(new, old) or _capability(upper + path) != _capability((view or b"") + path):
            yield Change(path, ChangeKind.MODIFY)
        return
    if old is None or not stat.S_ISDIR(old.st_mode):
        yield Change(path, ChangeKind.ADD if old is None else ChangeKind.MODIFY)
        yield from _compare(upper, None, path, step, hidden=hidden)
        return
    inside = list(_compare(upper, view, path, step, hidden=hidden))
    if inside or _differs(new, old):
        yield Change(path, ChangeKind.MODIFY)
    yield from inside


def _differs(new: os.stat_result, old: os.stat_result) -> bool:
    if (new.st_mode, new.st_uid, new.st_gid, new.st_rdev) != (old.st_mode, old.st_uid, old.st_gid, old.st_rdev):
        return True
    return not stat.S_ISDIR(new.st_mode) and (new.st_mtime_ns, new.st_size) != (old.st_mtime_ns, old.st_size)


def _lstat(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _capability(path: bytes) -> bytes | None:
    try:
        return os.getxattr(path, "security.capability", follow_symlinks=False)
    except OSError:
        return None
