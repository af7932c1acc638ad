"""Removal of directories: they disappear by one rename, and their content takes its time. All functions block."""

import secrets
from collections.abc import Iterable
from pathlib import Path

import structlog

from services.common.deletion import TreeDeletionError, delete_tree
from services.node.mounts import unmount_below

__all__ = ["bury", "delete_directory", "delete_leftovers"]

_log = structlog.get_logger(__name__)


def bury(directory: Path, place: Path) -> Path | None:
    """Take a directory away from where it is; return where it is now, None if there was none.

    By a rename and nothing else: on a full disk, no directory could be made for what is to make room there.

    Parameters
    ----------
    place
        Directory on the same file system, which the next start empties.
    """
    grave = place / f"{directory.name}.{secrets.token_hex(8)}"
    try:
        return directory.rename(grave)
    except FileNotFoundError:
        return None


def delete_directory(directory: Path) -> None:
    """Delete a directory with everything in it, whatever is mounted there; nothing happens if there is none.

    Raises
    ------
    TreeDeletionError
        Something in it cannot be deleted; the rest is gone.
    """
    try:
        delete_tree(directory)
    except TreeDeletionError:
        if not unmount_below(directory):
            raise
        delete_tree(directory)


def delete_leftovers(directories: Iterable[Path]) -> None:
    """Delete what an earlier process left half made or half deleted; what cannot be deleted is logged and stays."""
    for directory in directories:
        try:
            delete_directory(directory)
        except OSError as error:
            _log.warning("leftover_kept", path=str(directory), reason=str(error))
