"""Several layers as one: what they change together.

Nothing is copied: the files of the merged tree are hard links to those of the layers, which are read-only by then.
"""

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from services.common.archive.ondisk import OPAQUE_VALUE, OPAQUE_XATTR, is_opaque, is_whiteout
from services.common.archive.xattrs import OVERLAY_PREFIX
from services.common.deletion import delete_tree
from services.common.descent import Descent

__all__ = ["merged"]


@contextmanager
def merged(trees: Sequence[Path], below: Sequence[Path], scratch: Path) -> Iterator[Path]:
    """Merge layers for as long as the context lasts. Blocks.

    Parameters
    ----------
    trees
        The layers' own files, in the kernel's overlay encoding, base first. The merged tree is in the same encoding.
    below
        The layers that these stand on, base first. Stacked on them, the merged tree shows what the layers show that are
        stacked there one by one.
    scratch
        Directory on the layers' file system for what is made.
    """
    place = Path(tempfile.mkdtemp(dir=scratch))
    try:
        for tree in trees:
            with Descent.into(tree) as source, Descent.into(place) as target:
                _stack(source, target)
        with Descent.into(place) as target:
            _drop_idle_whiteouts(target, list(reversed(below)))
        yield place
    finally:
        delete_tree(place)


def _stack(source: Descent, target: Descent) -> None:
    """Put what a layer holds on top of what the layers below it hold."""
    # For each directory on the way to the present one, those in it that have not been entered yet.
    pending = [_stack_files(source.descriptor, target.descriptor)]
    while True:
        if pending[-1]:
            _enter(pending[-1].pop(), source, target)
            pending.append(_stack_files(source.descriptor, target.descriptor))
        elif source.depth:
            _copy_attributes(source.descriptor, target.descriptor)
            source.leave()
            target.leave()
            pending.pop()
        else:
            return


def _stack_files(source: int, target: int) -> list[bytes]:
    """Stack everything in a directory but the directories, and return their names."""
    directories = []
    with os.scandir(source) as entries:
        for entry in entries:
            new = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(new.st_mode):
                directories.append(os.fsencode(entry.name))
            else:
                _remove(entry.name, _lstat(entry.name, target), target)
                _stack_file(entry.name, new, source, target)
    return directories


def _enter(name: bytes, source: Descent, target: Descent) -> None:
    """Go into a directory of a layer, and of the merged tree, where it is made if there is none."""
    old = _lstat(name, target.descriptor)
    source.enter(name)
    opaque = is_opaque(source.descriptor)
    if old is None or opaque or not stat.S_ISDIR(old.st_mode):
        # What is in the way, be it a whiteout, hides what lies below it, and goes on doing so.
        opaque = opaque or old is not None
        _remove(name, old, target.descriptor)
        os.mkdir(name, 0o700, dir_fd=target.descriptor)
    target.enter(name)
    if opaque:
        os.setxattr(target.descriptor, OPAQUE_XATTR, OPAQUE_VALUE)


def _stack_file(name: str, new: os.stat_result, source: int, target: int) -> None:
    if is_whiteout(new):
        # The kernel makes the whiteouts of a layer links to one device, as many as there can be.
        os.mknod(name, new.st_mode, new.st_rdev, dir_fd=target)
    else:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)


class _Level:
    """A directory of the merged tree that whiteouts are dropped from."""

    __slots__ = ("before", "hiding", "names")

    def __init__(self, names: list[bytes], *, hiding: bool, before: os.stat_result) -> None:
        self.names = names
        """Directories in it that have not been entered yet."""
        self.hiding = hiding
        """Whether it, or one above it, hides everything that the layers below have there."""
        self.before = before
        """Its status before anything was removed."""


def _drop_idle_whiteouts(tree: Descent, below: Sequence[Path]) -> None:
    """Remove the whiteouts of what the layers below do not show, top first.

    One layer made it and another one deleted it. Where a directory is in no other layer, the kernel lists whiteouts.
    """
    levels = [_drop_here(tree, below, hiding=False)]
    while True:
        if levels[-1].names:
            tree.enter(levels[-1].names.pop())
            levels.append(_drop_here(tree, below, hiding=levels[-1].hiding))
            continue
        _set_times(tree.descriptor, levels.pop().before)
        if not tree.depth:
            return
        tree.leave()


def _drop_here(tree: Descent, below: Sequence[Path], *, hiding: bool) -> _Level:
    directory = tree.descriptor
    level = _Level([], hiding=hiding or is_opaque(directory), before=os.fstat(directory))
    for name in map(os.fsencode, os.listdir(directory)):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            level.names.append(name)
        elif is_whiteout(status) and (level.hiding or not _is_shown(tree.path(name), below)):
            os.unlink(name, dir_fd=directory)
    return level


def _is_shown(path: bytes, layers: Sequence[Path]) -> bool:
    """Tell whether stacked layers, top first, show a path."""
    answers = (_says(layer, path) for layer in layers)
    return next((answer for answer in answers if answer is not None), False)


def _says(layer: Path, path: bytes) -> bool | None:
    """Tell whether a layer shows or hides a path; None if it does neither."""
    *parents, last = path.split(b"/")
    hiding = False
    with Descent.into(layer) as place:
        try:
            for name in parents:
                place.enter(name)
                hiding = hiding or is_opaque(place.descriptor)
            return not is_whiteout(os.stat(last, dir_fd=place.descriptor, follow_symlinks=False))
        except FileNotFoundError:
            return False if hiding else None
        except NotADirectoryError:
            return False


def _remove(name: str | bytes, old: os.stat_result | None, target: int) -> None:
    if old is None:
        return
    if stat.S_ISDIR(old.st_mode):
        delete_tree(name, dir_fd=target)
    else:
        os.unlink(name, dir_fd=target)


def _copy_attributes(source: int, target: int) -> None:
    """Give a directory the attributes of another one, but for overlayfs's own."""
    status = os.fstat(source)
    names = {name for name in os.listxattr(source) if not _is_overlays(name)}
    for name in os.listxattr(target):
        if name not in names and not _is_overlays(name):
            os.removexattr(target, name)
    for name in names:
        os.setxattr(target, name, os.getxattr(source, name))
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    _set_times(target, status)


def _set_times(directory: int, status: os.stat_result) -> None:
    os.utime(directory, ns=(status.st_atime_ns, status.st_mtime_ns))


def _is_overlays(name: str) -> bool:
    return os.fsencode(name).startswith(OVERLAY_PREFIX)


def _lstat(name: str | bytes, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
