"""Stores of podman's in a revision of a native repository.

A store is a catalog, and has more of them where it has grown. What changes of all stores is written once, at the end of
the transaction.
"""

from collections.abc import Sequence
from typing import Final

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.common.layout import sidecar_path
from services.common.repository_name import RepositoryName
from services.common.sidecar import LayerSidecar
from services.repository.errors import ImageAdditionError
from services.repository.images import ImageDocuments
from services.repository.native.writer.tree import TreeUpdate
from services.repository.podman.stores import PodmanStores, is_store

__all__ = ["NativeStores"]

_LARGEST: Final = 4000
"""Entries that a catalog of a store should have at most: some 600 KB that a publish writes anew."""
_WORTH: Final = 500
"""Fewest entries that get a catalog of their own."""


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
        self._stores = PodmanStores(name=name, published=self)

    def image(self, name: ImageName) -> ImageDocuments | None:
        """Return an image; None if there is none of that name."""
        files = self._update.images.read(name)
        return None if files is None else ImageDocuments.published(name, files)

    def paths(self) -> Sequence[str]:
        """Return the paths of the stores that are there."""
        found: list[str] = []
        for name in sorted(name.decode(errors="replace") for name in self._update.trees.names(b"")):
            match is_store(name):
                case True:
                    found.append(name)
                case None:
                    inner = self._update.trees.names(_path(name))
                    found += [f"{name}/{each.decode(errors='replace')}" for each in sorted(inner)]
        return found

    def read(self, path: str) -> bytes | None:
        """Read a file; None where there is none."""
        return self._update.read(_path(path))

    def exists(self, path: str) -> bool:
        """Tell whether there is anything at a path."""
        return self._update.trees.mode(_path(path)) is not None

    def uncompressed_size(self, digest: Digest) -> int | None:
        """Return the size of a layer's tar stream, in bytes; None if there is no such layer."""
        content = self._update.sidecar(digest)
        if content is None:
            return None
        try:
            return LayerSidecar.parse(content, where=sidecar_path(digest)).uncompressed_size
        except InvalidValueError as error:
            raise ImageAdditionError(f"the sidecar of a layer is damaged: {error}") from error

    def replace(self, name: ImageName, after: ImageDocuments | None) -> None:
        """Put an image into its stores; parameters and errors as of `PodmanStores.replace`."""
        self._stores.replace(name, after)

    def remove(self, config: Digest) -> None:
        """Take an image out of all stores; parameters and errors as of `PodmanStores.remove`."""
        self._stores.remove(config)

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
            self._update.split_grown(store, largest=_LARGEST, worth=_WORTH)


def _path(path: str) -> bytes:
    return b"/" + path.encode()
