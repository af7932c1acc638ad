"""Whether a directory can hold what unions are written to, and what the kernel makes of unions there: by trying."""

import errno
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.node.errors import MountError
from services.node.mounts import OverlaySource, has_xino, mount_overlay, unmount
from services.node.removal import delete_leftovers

__all__ = ["OverlayFeatures", "check_overlay"]

_PLACE: Final = ".check-"
"""How the names of the directories begin in which it is tried."""
_ROOM: Final = 32
"""Blocks, and files, that an overlay surely finds room in."""
_ORIGIN: Final = "trusted.overlay.origin"
"""Where the kernel notes the file that was copied up (struct ovl_fb): five bytes, then its file system's UUID."""
_UUID: Final = slice(5, 21)


@dataclass(frozen=True, slots=True)
class OverlayFeatures:
    """What the kernel can do for unions of which a part is in a repository, whose file system has no UUID."""

    xino: bool
    """Whether all files of a union have one device number, as files of one file system do."""
    origins: bool | None
    """Whether it knows which file was copied up from where: if local layers are on a file system that has a UUID, and
    so not taken for the repository's. None where a full disk leaves it untried."""


def check_overlay(directory: Path) -> OverlayFeatures:
    """Try a whole overlay below a directory: better a clear error at start than a strange one in a container.

    On a full disk there is nothing to try with, and a driver that did not start could remove nothing from it either.

    Raises
    ------
    MountError
        The kernel has no overlay, or the directory's file system cannot hold an upper directory.
    """
    # What a kill left in the middle of one, which is mounted yet.
    delete_leftovers(list(directory.glob(f"{_PLACE}*")))
    try:
        with tempfile.TemporaryDirectory(dir=directory, prefix=_PLACE) as name:
            whiteout, origin = _try_overlay(Path(name))
    except (MountError, OSError) as error:
        if _is_full(directory, error):
            return OverlayFeatures(xino=has_xino(), origins=None)
        raise MountError(
            f"{directory} cannot hold the writable layers of containers: {error}; "
            "it needs a file system such as ext4 or xfs (with ftype=1), and must not lie on an overlay itself"
        ) from error
    if not stat.S_ISCHR(whiteout.st_mode):
        raise MountError(f"the kernel marks deletions in {directory} in an unknown way: mode {whiteout.st_mode:o}")
    return OverlayFeatures(xino=has_xino(), origins=any(origin[_UUID]))


def _try_overlay(place: Path) -> tuple[os.stat_result, bytes]:
    """Use an overlay in an empty directory.

    Returns
    -------
    tuple of os.stat_result and bytes
        What the upper directory has for a file that was deleted, and what it notes of one that was copied up.
    """
    for part in ("lower", "upper", "work", "merged"):
        (place / part).mkdir()
    for file in ("deleted", "changed"):
        (place / "lower" / file).touch()
    mount_overlay(OverlaySource(lowers=["lower"], upper="upper", work="work"), "merged", directory=place)
    try:
        (place / "merged" / "deleted").unlink()
        (place / "merged" / "changed").chmod(0o600)
    finally:
        unmount(place / "merged")
    return os.lstat(place / "upper" / "deleted"), _noted_origin(place / "upper" / "changed")


def _noted_origin(file: Path) -> bytes:
    try:
        return os.getxattr(file, _ORIGIN)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        # Kernels before 4.12 note none, nor does one that cannot find files of that file system again.
        return b""


def _is_full(directory: Path, error: Exception) -> bool:
    """Tell whether it was for want of space that something failed: the kernel may say that it cannot be written to."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    status = os.statvfs(directory)
    # Some file systems have no fixed number of files.
    return status.f_bfree < _ROOM or (status.f_files > 0 and status.f_ffree < _ROOM)
