"""The catalogs above the layers, those that were used last in memory."""

import threading
from typing import Final

from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.records import ContentHash, ObjectKind
from services.repository.native.storage.interface import Storage
from services.repository.native.writer.catalog import Catalog
from services.repository.native.writer.compressor import Compressor, Pieces

__all__ = ["KeptCatalogs"]

_KEPT: Final = 16 << 20
"""Uncompressed catalogs that are kept in memory, in bytes: the root catalog and those that were used last."""


class KeptCatalogs:
    """Reads catalogs, and keeps some; blocking, safe for several threads.

    Parameters
    ----------
    storage
        Where they are.
    """

    def __init__(self, *, storage: Storage, compressor: Compressor) -> None:
        self._storage = storage
        self._compressor = compressor
        self._kept: dict[ContentHash, Pieces] = {}
        self._memory = 0
        """Of all that is kept, in bytes."""
        self._root: tuple[ContentHash, Catalog] | None = None
        """The root catalog that was used last, unless somebody uses it."""
        self._lock = threading.Lock()

    def content(self, name: ContentHash) -> Pieces:
        """Return the uncompressed database of a catalog above the layers."""
        content = self.kept(name)
        if content is None:
            content = Pieces(self.read(name))
            self.keep(name, content)
        return content

    def kept(self, name: ContentHash) -> Pieces | None:
        """Return a catalog that is in memory."""
        with self._lock:
            content = self._kept.pop(name, None)
            if content is not None:
                self._kept[name] = content  # the last one in the order of use
            return content

    def keep(self, name: ContentHash, content: Pieces, *, instead: ContentHash | None = None) -> None:
        """Keep a catalog in memory, and no longer the one that it comes after."""
        with self._lock:
            for gone in (name, instead):
                if gone in self._kept:
                    self._memory -= self._kept.pop(gone).memory
            self._kept[name] = content
            self._memory += content.memory
            while self._memory > _KEPT and len(self._kept) > 1:
                self._memory -= self._kept.pop(next(iter(self._kept))).memory

    def take_root(self, name: ContentHash) -> Catalog:
        """Open a root catalog; where it is the one that was used last, it is open already.

        With a link for each layer it is large: neither looking for one layer nor adding one should read all of it.

        Raises
        ------
        BrokenRepositoryError
            It is not what its name says.
        StorageError
            The storage failed.
        """
        with self._lock:
            if self._root is not None and self._root[0] == name:
                catalog, self._root = self._root[1], None
                return catalog
        return self.load(name, self.content(name))

    def return_root(self, name: ContentHash, catalog: Catalog) -> None:
        """Leave a root catalog open that is as it was stored."""
        with self._lock:
            last, self._root = self._root, (name, catalog)
        if last is not None:
            last[1].close()

    def load(self, name: ContentHash, stored: Pieces) -> Catalog:
        """Open a catalog."""
        return Catalog(stored.content, where=f"{self._storage}: {name.path(ObjectKind.CATALOG)}")

    def close(self) -> None:
        """Free the memory."""
        with self._lock:
            if self._root is not None:
                self._root[1].close()
                self._root = None

    def read(self, name: ContentHash) -> bytes:
        """Read a catalog's uncompressed database from the storage.

        Raises
        ------
        BrokenRepositoryError
            It is not what its name says.
        StorageError
            The storage failed.
        """
        path = name.path(ObjectKind.CATALOG)
        stored = self._storage.read(path)
        if ContentHash.of(stored, name.algorithm) != name:
            raise BrokenRepositoryError(f"{self._storage}: {path} is damaged: its content has another hash")
        return self._compressor.expand(stored)
