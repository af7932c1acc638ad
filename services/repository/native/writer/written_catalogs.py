"""Catalogs that are on their way into the storage, from those below others up."""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from services.repository.native.records import COUNTER_NAMES
from services.repository.native.writer.catalog import NestedCatalog
from services.repository.native.writer.pool import StoredCatalog
from services.repository.native.writer.rows import DirectoryRow

__all__ = ["CatalogContents", "WrittenCatalog"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenCatalog:
    """A catalog that is being made."""

    path: bytes
    root: DirectoryRow
    counters: Mapping[str, int]
    stored: Future[StoredCatalog]

    def nested(self) -> NestedCatalog:
        """Wait until it has been stored.

        Raises
        ------
        StorageError
            It cannot be.
        """
        name, size = self.stored.result()
        return NestedCatalog(path=self.path, name=name, size=size, root=self.root, counters=self.counters)


@dataclass(slots=True)
class CatalogContents:
    """What the rows of one catalog are about, known when all of them have been given."""

    counts: Counter[str] = field(default_factory=Counter)
    """By `COUNTER_NAMES`, of itself."""
    chunked: list[tuple[tuple[int, int], int]] = field(default_factory=list)
    """Path hash of each file that has chunks, and the number by which whoever makes the catalog knows it."""
    nested: list[WrittenCatalog] = field(default_factory=list)
    """Catalogs directly below."""

    def counters(self) -> Iterator[tuple[str, int]]:
        """Give the rows of the statistics."""
        for name in COUNTER_NAMES:
            yield f"self_{name}", self.counts[name]
            yield f"subtree_{name}", sum(below.counters[name] for below in self.nested)

    def references(self) -> Iterator[tuple[bytes, str, int]]:
        """Give path, name and size of the catalogs directly below, when they have been stored."""
        for below in self.nested:
            name, size = below.stored.result()
            yield below.path, str(name), size

    def totals(self) -> Mapping[str, int]:
        """Return what is counted of the catalog and of everything below it."""
        return {name: self.counts[name] + sum(below.counters[name] for below in self.nested) for name in COUNTER_NAMES}
