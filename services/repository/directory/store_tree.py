"""Stores of podman's as readers of a tree see them."""

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from services.common.archive.ondisk import OPAQUE_XATTR
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import sidecar_path
from services.common.mask import UNPRIVILEGED_OPAQUE_XATTR
from services.repository.directory.batches import BATCHES, HEAD
from services.repository.directory.images import ImageIndex
from services.repository.images import ImageDocuments
from services.repository.podman.stores import store_paths

__all__ = ["LISTS_OF_STORES", "DirectoryStoreTree"]

LISTS_OF_STORES: Final = "podman"
"""Directory of a batch that has the lists of all stores."""
_NOTHING: Final = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class DirectoryStoreTree:
    """The stores of a tree; blocking.

    Parameters
    ----------
    root
        The root of the tree.
    staging
        The directory of a transaction, whose layers are there as well; None for what is published alone.
    images
        What is published.
    """

    def __init__(self, *, root: Path, staging: Path | None, images: ImageIndex) -> None:
        self._root = root
        self._staging = staging
        self._images = images

    def paths(self) -> Sequence[str]:
        """Return the paths of the stores that are there."""
        return store_paths(lambda directory: os.listdir(self._root / directory))

    def read(self, path: str) -> bytes | None:
        """Read a file; None where there is none."""
        try:
            return (self._root / path).read_bytes()
        except _NOTHING:
            return None

    def read_list(self, path: str) -> bytes | None:
        """Read a list of a store as it was published, whatever has become of the link to it, or as DUCC has left it."""
        try:
            return (self._root / BATCHES / HEAD / LISTS_OF_STORES / path).read_bytes()
        except FileNotFoundError:
            return None if (self._root / path).is_symlink() else self.read(path)

    def target(self, path: str) -> str | None:
        """Return where a symbolic link leads; None where there is none."""
        try:
            return os.readlink(self._root / path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENOTDIR):
                return None
            raise

    def deletes(self, path: str) -> bool:
        """Tell whether overlayfs takes what is at a path for a deletion: a whiteout, or an opaque directory."""
        try:
            status = os.lstat(self._root / path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        if stat.S_ISDIR(status.st_mode):
            attributes = os.listxattr(self._root / path, follow_symlinks=False)
            return OPAQUE_XATTR in attributes and UNPRIVILEGED_OPAQUE_XATTR in attributes
        return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0

    def exists(self, path: str) -> bool:
        """Tell whether there is anything at a path."""
        return os.path.lexists(self._root / path)

    def sidecar(self, digest: Digest) -> bytes | None:
        """Read the sidecar of a layer, which may be of the same transaction; None if there is no such layer."""
        staged = [] if self._staging is None else [self._staging / digest / "layer.json"]
        for path in (*staged, self._root / sidecar_path(digest)):
            with suppress(FileNotFoundError):
                return path.read_bytes()
        return None

    def stored(self, name: ImageName) -> ImageDocuments | None:
        """Return the image of a name if it is in stores, as its record says."""
        return self._images.published(name)
