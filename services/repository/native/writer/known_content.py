"""The index of content, as one publisher of several uses it: what another machine has collected is not known any more.

A collection tells the index of its own machine what it deletes. The indexes of other machines catch up when they find
that there was one: by a list of what is in the bucket, which costs a request for each thousand objects.
"""

import threading
from collections.abc import Iterable, Iterator

import structlog

from services.repository.native.collection.names import ObjectName
from services.repository.native.storage.interface import Storage
from services.repository.native.writer.index import ContentIndex

__all__ = ["KnownContent"]

_log = structlog.get_logger(__name__)


class KnownContent:
    """The index and the storage that it is about; blocking, safe for several threads.

    Parameters
    ----------
    index
        The index, which nobody else in this process uses.
    storage
        What it is about.
    """

    def __init__(self, *, index: ContentIndex, storage: Storage) -> None:
        self._index = index
        self._storage = storage
        self._lock = threading.Lock()

    def catch_up(self) -> str:
        """Drop what others have collected; return what the storage says of collections, which was asked before.

        Whoever holds the storage's objects may rely on the index from then on, until that changes.

        Raises
        ------
        StorageError
            The storage or the index failed.
        """
        collections = self._storage.collections()
        with self._lock:
            if self._index.collections() != collections:
                _log.info("another machine has collected garbage: what is left is looked for", place=str(self._storage))
                self._index.retain(self._present(), collections=collections)
        return collections

    def _present(self) -> Iterator[bytes]:
        if not len(self._index):
            return
        for stored in self._storage.list("data/"):
            name = ObjectName.of_path(stored.path)
            if name is not None:
                yield name.hash.digest

    def add(self, rows: Iterable[tuple[bytes, str, bytes]]) -> None:
        """Remember objects that a revision names; errors as `ContentIndex.add`."""
        with self._lock:
            self._index.add(rows)

    def forget_all(self) -> None:
        """Start anew; errors as `ContentIndex.start_anew`."""
        with self._lock:
            self._index.start_anew()
