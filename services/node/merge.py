"""Several layers as one: what they change together.

Nothing is copied: the files of the merged tree are hard links to those of the layers, which are read-only by then.
"""

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.common.archive.ondisk import OPAQUE_VALUE, OPAQUE_XATTR, is_opaque, is_whiteout
from services.common.archive.xattrs import OVERLAY_PREFIX
from services.common.deletion import delete_tree

__all__ = ["merged"]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
        with _open(place) as target:
            for tree in trees:
                with _open(tree) as source:
                    _stack(source, target)
            _drop_idle_whiteouts(target, b"", list(map(os.fsencode, reversed(below))), hiding=False)
        yield place
    finally:
        delete_tree(place)


@contextmanager
def _open(path: str | Path, *, parent: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, _DIRECTORY, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _stack(source: int, target: int) -> None:
    """Put what a directory of a layer holds on top of what the same directory holds of the layers below it."""
    with os.scandir(source) as entries:
        for entry in entries:
            new = entry.stat(follow_symlinks=False)
            old = _lstat(entry.name, target)
            if stat.S_ISDIR(new.st_mode):
                with _open(entry.name, parent=source) as directory:
                    _stack_directory(directory, entry.name, old, target)
            else:
                _remove(entry.name, old, target)
                _stack_file(entry.name, new, source, target)


def _stack_directory(directory: int, name: str, old: os.stat_result | None, target: int) -> None:
    opaque = is_opaque(directory)
    if old is None or opaque or not stat.S_ISDIR(old.st_mode):
        # What is in the way, be it a whiteout, hides what lies below it, and goes on doing so.
        opaque = opaque or old is not None
        _remove(name, old, target)
        os.mkdir(name, 0o700, dir_fd=target)
    with _open(name, parent=target) as made:
        if opaque:
            os.setxattr(made, OPAQUE_XATTR, OPAQUE_VALUE)
        _stack(directory, made)
        _copy_attributes(directory, made)


def _stack_file(name: str, new: os.stat_result, source: int, target: int) -> None:
    if is_whiteout(new):
        # The kernel makes the whiteouts of a layer links to one device, as many as there can be.
        os.mknod(name, new.st_mode, new.st_rdev, dir_fd=target)
    else:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)


def _drop_idle_whiteouts(directory: int, path: bytes, below: Sequence[bytes], *, hiding: bool) -> None:
    """Remove the whiteouts of what the layers below do not show, base last.

    One layer made it and another one deleted it. Where a directory is in no other layer, the kernel lists whiteouts.
    """
    hiding = hiding or is_opaque(directory)
    before = os.fstat(directory)
    for name in map(os.fsencode, os.listdir(directory)):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            with _open(os.fsdecode(name), parent=directory) as inside:
                _drop_idle_whiteouts(inside, path + b"/" + name, below, hiding=hiding)
        elif is_whiteout(status) and (hiding or not _is_shown(path + b"/" + name, below)):
            os.unlink(name, dir_fd=directory)
    _set_times(directory, before)


def _is_shown(path: bytes, layers: Sequence[bytes]) -> bool:
    """Tell whether stacked layers, top first, show a path."""
    answers = (_says(layer, path) for layer in layers)
    return next((answer for answer in answers if answer is not None), False)


def _says(layer: bytes, path: bytes) -> bool | None:
    """Tell whether a layer shows or hides a path; None if it does neither."""
    place, hiding = layer, False
    *parents, last = path.strip(b"/").split(b"/")
    for name in parents:
        place += b"/" + name
        try:
            status = os.lstat(place)
        except FileNotFoundError:
            return False if hiding else None
        if not stat.S_ISDIR(status.st_mode):
            return False
        hiding = hiding or is_opaque(place)
    try:
        return not is_whiteout(os.lstat(place + b"/" + last))
    except FileNotFoundError:
        return False if hiding else None


def _remove(name: str, old: os.stat_result | None, target: int) -> None:
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


def _lstat(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
