"""How a layer's deletions are kept on disk.

A layer says by whiteouts and opaque markers what of the layers below it is gone. A directory that overlayfs stacks
says it by 0:0 character devices and an extended attribute (kernel documentation, overlayfs.rst). Not every place a
layer is unpacked to can hold those: a CVMFS transaction area is an overlay itself and refuses the devices, so there the
deletions are only reported and travel in the layer's sidecar.
"""

import os
import stat
from typing import Final, Protocol

__all__ = [
    "OPAQUE_VALUE",
    "OPAQUE_XATTR",
    "DeletionEncoding",
    "ListedDeletions",
    "OverlayDeletions",
    "is_opaque",
    "is_whiteout",
]

OPAQUE_XATTR: Final = "trusted.overlay.opaque"
"""Attribute of a directory that hides what lower layers hold there."""

OPAQUE_VALUE: Final = b"y"
"""Its value."""


def is_whiteout(status: os.stat_result) -> bool:
    """Tell whether a file is one that overlayfs takes for a deletion: a 0:0 character device."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(directory: int | bytes) -> bool:
    """Tell whether a directory hides what lower layers hold there; what has no attributes does not."""
    try:
        return os.getxattr(directory, OPAQUE_XATTR) == OPAQUE_VALUE
    except OSError:
        return False


class DeletionEncoding(Protocol):
    """The one place that knows how a deletion looks in a tree."""

    def delete(self, directory: int, name: bytes) -> None:
        """Record in an open directory that a name, which does not exist there, is deleted from the layers below.

        Raises
        ------
        OSError
            The file system refused.
        """

    def make_opaque(self, directory: int) -> None:
        """Record that an open directory hides what the layers below hold there.

        Raises
        ------
        OSError
            The file system refused.
        """


class OverlayDeletions:
    """Deletions as overlayfs reads them in a lower directory."""

    def delete(self, directory: int, name: bytes) -> None:
        """Make a 0:0 character device."""
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=directory)

    def make_opaque(self, directory: int) -> None:
        """Set the opaque attribute."""
        os.setxattr(directory, OPAQUE_XATTR, OPAQUE_VALUE)


class ListedDeletions:
    """Deletions that only `LayerContent` reports; the tree shows nothing of them."""

    def delete(self, directory: int, name: bytes) -> None:
        """Leave the tree as it is."""

    def make_opaque(self, directory: int) -> None:
        """Leave the tree as it is."""
