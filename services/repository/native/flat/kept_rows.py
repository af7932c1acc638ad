"""Rows of catalogs of layers, packed: of those that were made last, and of those that flat images were made of lately.

A flat image is made right after the layers of its image, and images of one base have most of their layers in common. To
read rows from catalogs takes a third of the time in which a flat image is made; to unpack them, a tenth of that.
"""

import threading
from typing import Final

from services.repository.native.records import ContentHash

__all__ = ["KeptRows"]

_MOST: Final = 24 << 20
"""Bytes of memory that they may take: some 150,000 entries."""


class KeptRows:
    """Keeps those that were used last; safe for several threads."""

    def __init__(self) -> None:
        self._kept: dict[ContentHash, bytes] = {}
        self._size = 0
        self._lock = threading.Lock()

    def get(self, catalog: ContentHash) -> bytes | None:
        """Return the rows of a catalog, as `CatalogRows` packs them; None where they are not kept."""
        with self._lock:
            packed = self._kept.pop(catalog, None)
            if packed is not None:
                self._kept[catalog] = packed  # the last one in the order of use
            return packed

    def put(self, catalog: ContentHash, packed: bytes) -> None:
        """Keep the rows of a catalog, unless they alone are too many."""
        if len(packed) > _MOST:
            return
        with self._lock:
            self._size += len(packed) - len(self._kept.pop(catalog, b""))
            self._kept[catalog] = packed
            while self._size > _MOST:
                self._size -= len(self._kept.pop(next(iter(self._kept))))
