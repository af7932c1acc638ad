"""Stores of podman's in a revision of a native repository.

A store is a catalog, and has more of them where it has grown. What changes of all stores is written once, at the end of
the transaction.
"""

import os
from collections.abc import Callable, Collection, Sequence
from typing import Final

from services.common.archive.ondisk import OPAQUE_VALUE, OPAQUE_XATTR
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.mask import UNPRIVILEGED_OPAQUE_XATTR
from services.common.repository_name import RepositoryName
from services.repository.images import ImageDocuments
from services.repository.native.records import ContentHash
from services.repository.native.writer.tree import RepositoryTree, TreeUpdate
from services.repository.native.writer.xattrs import packed
from services.repository.podman.layer_facts import Deletions
from services.repository.podman.shown import StoredImage, images_in_stores, images_not_in_stores
from services.repository.podman.stores import PodmanStores, store_paths

__all__ = ["NativeStores", "not_in_stores", "stored_images"]

_LARGEST: Final = 4000
"""Entries that a catalog of a store should have at most: some 600 KB that a publish writes anew."""
_WORTH: Final = 500
"""Fewest entries that get a catalog of their own."""
_OPAQUE: Final = packed({name.encode(): OPAQUE_VALUE for name in (OPAQUE_XATTR, UNPRIVILEGED_OPAQUE_XATTR)})
"""Attributes of an opaque directory."""


class _StoreTree:
    """The stores of a revision; blocking.

    Parameters
    ----------
    update
        The revision, and what is changed in it.
    """

    def __init__(self, update: TreeUpdate) -> None:
        self._update = update

    def stored(self, name: ImageName) -> ImageDocuments | None:
        """Return the image of a name if it is in stores, as its record says."""
        files = self._update.images.read(name)
        return None if files is None else ImageDocuments.published(name, files)

    def paths(self) -> Sequence[str]:
        """Return the paths of the stores that are there."""
        return store_paths(self._names)

    def _names(self, directory: str) -> Sequence[str]:
        names = self._update.trees.names(_path(directory) if directory else b"")
        return [name.decode(errors="replace") for name in names]

    def read(self, path: str) -> bytes | None:
        """Read a file; None where there is none."""
        return self._update.read(_path(path))

    def read_list(self, path: str) -> bytes | None:
        """Read a list of a store."""
        return self.read(path)

    def target(self, path: str) -> str | None:
        """Return where a symbolic link leads; None where there is none."""
        target = self._update.trees.link_target(_path(path))
        return None if target is None else os.fsdecode(target)

    def deletes(self, path: str) -> bool:
        """Tell whether overlayfs takes what is at a path for a deletion: a whiteout, or an opaque directory."""
        return self._update.trees.deletes(_path(path))

    def exists(self, path: str) -> bool:
        """Tell whether there is anything at a path."""
        return self._update.trees.mode(_path(path)) is not None

    def sidecar(self, digest: Digest) -> bytes | None:
        """Read the sidecar of a layer, which may be of the same transaction; None if there is no such layer."""
        return self._update.sidecar(digest)


class NativeStores:
    """The stores of one transaction; blocking.

    Parameters
    ----------
    name
        Name of the repository.
    update
        The revision.
    """

    def __init__(self, *, name: RepositoryName, update: TreeUpdate) -> None:
        self._update = update
        self._stores = PodmanStores(name=name, published=_StoreTree(update))

    def plan(self, name: ImageName, after: ImageDocuments | None) -> Callable[[], None]:
        """Prepare to put an image into its stores; parameters, result and errors as of `PodmanStores.plan`."""
        return self._stores.plan(name, after)

    def plan_removal(self, config: Digest) -> Callable[[], None]:
        """Prepare to take an image out of all stores; all as of the same of `PodmanStores`."""
        return self._stores.plan_removal(config)

    def check_unused(self, layer: Digest) -> None:
        """Make sure that no store leads to a layer; errors as of `PodmanStores.check_unused`."""
        self._stores.check_unused(layer)

    def write(self) -> None:
        """Bring all changes into the revision.

        Raises
        ------
        NativeError
            Something is in the way.
        """
        trees = self._update.trees
        for path, change in self._stores.changes().items():
            store = _path(path)
            trees.make_catalog(store)
            trees.make_directory(store + b"/overlay/l")
            for entry in change.removed:
                trees.remove(store + b"/" + entry.encode())
            for link, target in sorted(change.links.items()):
                trees.put_symlink(store + b"/" + link.encode(), target.encode())
            for file, content in sorted(change.files.items()):
                trees.put_file(store + b"/" + file.encode(), content)
            for mask, deletions in sorted(change.masks.items()):
                self._write_mask(store + b"/" + mask.encode(), deletions)
            self._update.split_grown(store, largest=_LARGEST, worth=_WORTH)

    def _write_mask(self, mask: bytes, deletions: Deletions) -> None:
        trees = self._update.trees
        trees.make_directory(mask)
        for path in sorted(deletions.opaque):  # the upper ones of several first
            trees.new_directory(mask + b"/" + path, xattr=_OPAQUE)
        for path in deletions.whiteouts:
            trees.put_whiteout(mask + b"/" + path)


def stored_images(tree: RepositoryTree, root: ContentHash, name: RepositoryName) -> Collection[StoredImage]:
    """Return all that the stores of a revision show; blocking."""
    with TreeUpdate(tree, root) as update:
        return images_in_stores(_StoreTree(update), name)


def not_in_stores(
    tree: RepositoryTree, root: ContentHash, name: RepositoryName, images: Sequence[ImageDocuments]
) -> Collection[ImageName]:
    """Return which images are not as they are to be in the stores of a revision; blocking."""
    with TreeUpdate(tree, root) as update:
        return images_not_in_stores(_StoreTree(update), name, images)


def _path(path: str) -> bytes:
    return b"/" + os.fsencode(path)
