"""Open catalogs, kept while there is room: look-ups come back to the same few."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

from services.repository.native.reader.catalog import Catalog, CatalogReference
from services.repository.native.reader.database import DATABASE_LIMIT, Database
from services.repository.native.reader.source import Source
from services.repository.native.records import ContentHash, ObjectKind

__all__ = ["CatalogCache"]

_ROOM: Final = 256 << 20
"""Bytes of temporary files that are kept open."""
_FILES: Final = 64
"""Number of them."""


class CatalogCache:
    """The catalogs that were used last; threads may share it. A context manager that closes them.

    Catalogs are known by their hashes, so those that a new revision has in common with the last one stay useful.

    Parameters
    ----------
    source
        Where the repository is.
    room
        Bytes that unused catalogs may have together.
    """

    def __init__(self, source: Source, *, room: int = _ROOM) -> None:
        self._source = source
        self._room = room
        self._lock = threading.Lock()
        self._catalogs: OrderedDict[tuple[ContentHash, bytes], _Held] = OrderedDict()
        self._size = 0
        """Of all their files together, in bytes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all catalogs; none may be in use."""
        with self._lock:
            while self._catalogs:
                self._catalogs.popitem()[1].catalog.close()
            self._size = 0

    @contextmanager
    def open(self, reference: CatalogReference) -> Iterator[Catalog]:
        """Open a catalog, which stays open for the time of the context at least.

        Raises
        ------
        ObjectMissingError, StorageError, BrokenRepositoryError
            It cannot be read, or is not what it should be.
        """
        held = self._take(reference)
        try:
            yield held.catalog
        finally:
            with self._lock:
                held.users -= 1
                self._shrink()

    def _take(self, reference: CatalogReference) -> "_Held":
        key = (reference.hash, reference.path)
        with self._lock:
            if (held := self._catalogs.get(key)) is not None:
                return self._use(key, held)
        # Fetched without the lock; a thread that was quicker wins.
        database = Database.load(
            self._source, reference.hash, ObjectKind.CATALOG, limit=reference.size or DATABASE_LIMIT
        )
        catalog = Catalog(database, path=reference.path)
        with self._lock:
            if (held := self._catalogs.get(key)) is not None:
                catalog.close()
                return self._use(key, held)
            held = self._catalogs[key] = _Held(catalog)
            self._size += database.size
            return self._use(key, held)

    def _use(self, key: tuple[ContentHash, bytes], held: "_Held") -> "_Held":
        held.users += 1
        self._catalogs.move_to_end(key)
        return held

    def _shrink(self) -> None:
        if self._fits():
            return
        idle = [key for key, held in self._catalogs.items() if not held.users]
        # The last one stays however large it is: a look-up comes back to it for every directory on its way.
        for key in idle[:-1]:
            catalog = self._catalogs.pop(key).catalog
            self._size -= catalog.database.size
            catalog.close()
            if self._fits():
                return

    def _fits(self) -> bool:
        return self._size <= self._room and len(self._catalogs) <= _FILES


class _Held:
    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.users = 0
