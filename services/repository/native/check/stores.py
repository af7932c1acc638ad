"""Checks podman's stores in a revision: whether their lists, their directories and the repository's layers agree."""

import os
from collections.abc import Iterator, Sequence
from typing import Final

from services.common.digest import Digest
from services.common.layout import layer_tree, sidecar_path
from services.repository.errors import ImageAdditionError
from services.repository.native.check.problem import Problem, at_most_few
from services.repository.native.reader.entries import Entry, show_path
from services.repository.native.reader.revision import Revision
from services.repository.podman.inspection import StoreInspection
from services.repository.podman.stores import store_paths

__all__ = ["RevisionStores", "check_stores"]

_LIST_LIMIT: Final = 256 << 20
"""Largest list that is read, in bytes."""
_OPAQUE: Final = (b"trusted.overlay.opaque", b"user.overlay.opaque")
_REMEDY: Final = "publish the images again that are in the store"


class RevisionStores:
    """The stores of a revision (blocking)."""

    def __init__(self, revision: Revision) -> None:
        self._revision = revision

    def paths(self) -> Sequence[str]:
        """Return the paths of the stores that are there, relative to the root."""
        return store_paths(self._directories)

    def _directories(self, path: str) -> Sequence[str]:
        inner = self._revision.list(b"/" + os.fsencode(path) if path else b"")
        return [os.fsdecode(entry.name) for entry in inner if entry.is_directory]

    def read(self, path: str) -> bytes | None:
        """Read a file; None where there is none, or one that is too large."""
        entry = self._entry(path)
        if entry is None or not entry.is_file or entry.size > _LIST_LIMIT:
            return None
        return b"".join(self._revision.content(entry))

    def target(self, path: str) -> str | None:
        """Return where a symbolic link leads; None where there is none."""
        entry = self._entry(path)
        return os.fsdecode(entry.target) if entry is not None and entry.is_symlink else None

    def exists(self, path: str) -> bool:
        """Tell whether there is anything at a path."""
        return self._entry(path) is not None

    def deletes(self, path: str) -> bool:
        """Tell whether overlayfs takes what is at a path for a deletion: a whiteout, or an opaque directory."""
        entry = self._entry(path)
        if entry is not None and entry.is_directory:
            return all(entry.xattrs.get(name) == b"y" for name in _OPAQUE)
        return entry is not None and entry.is_device and entry.size == 0

    def sidecar(self, digest: Digest) -> bytes | None:
        """Read the sidecar of a layer; None if there is no such layer."""
        return self.read(sidecar_path(digest)) if self.exists(layer_tree(digest)) else None

    def _entry(self, path: str) -> Entry | None:
        return self._revision.stat(b"/" + os.fsencode(path))


def check_stores(revision: Revision, name: str) -> Iterator[Problem]:
    """Iterate over what is wrong with the stores of a revision.

    Parameters
    ----------
    name
        Name of the repository, below `/cvmfs` of which clients have it.

    Raises
    ------
    ObjectMissingError, StorageError, BrokenRepositoryError
        A catalog or a list cannot be read.
    """
    stores = RevisionStores(revision)
    for path in stores.paths():
        place = show_path(b"/" + os.fsencode(path))
        try:
            inspection = StoreInspection(stores, path, name)
        except ImageAdditionError as error:
            yield Problem(place, f"a list of the store cannot be read: {error}", _REMEDY)
            continue
        for kind in inspection.problems():
            told = (Problem(show_path(b"/" + os.fsencode(found.path)), found.what, _REMEDY) for found in kind)
            yield from at_most_few(told, place=place)
