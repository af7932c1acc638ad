"""A repository, read as its clients read it: from the head down, nothing believed that is not signed or hashed."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Self

from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.reader.cache import CatalogCache
from services.repository.native.reader.catalog import CatalogReference
from services.repository.native.reader.database import Database
from services.repository.native.reader.history import Tag, read_tags
from services.repository.native.reader.objects import read_small_object
from services.repository.native.reader.revision import Revision
from services.repository.native.reader.source import Source
from services.repository.native.reader.trusted import Head, HeadReader, Identity, utc_now
from services.repository.native.records import ObjectKind

__all__ = ["RepositoryReader"]

_HISTORY_LIMIT: Final = 1 << 30
"""Largest tag database that is read, in bytes."""
_META_LIMIT: Final = 16 << 20
"""Largest meta information that is read, in bytes."""


class RepositoryReader:
    """Reads one repository (blocking; threads may share it). A context manager that closes its catalogs.

    Parameters
    ----------
    source
        Its storage, or an `HttpSource`.
    name
        The name that it must have.
    master_keys
        Public master keys, PEM; one of them must have signed the whitelist.
    clock
        Tells the time, for the whitelist's end.

    Raises
    ------
    UntrustedError
        A key is none.
    """

    def __init__(
        self,
        source: Source,
        *,
        name: str,
        master_keys: Sequence[bytes],
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.source = source
        self._heads = HeadReader(source, Identity.of(name, master_keys), clock=clock)
        self._catalogs = CatalogCache(source)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_failure: object) -> None:
        self._catalogs.close()

    def head(self) -> Head:
        """Fetch and verify the head.

        Raises
        ------
        ObjectMissingError, StorageError, BrokenRepositoryError
            As `HeadReader.read`.
        """
        return self._heads.read()

    def tags(self, head: Head) -> list[Tag]:
        """Fetch the tags, the newest revision first.

        Raises
        ------
        ObjectMissingError, StorageError, BrokenRepositoryError
            The tag database cannot be read.
        """
        if head.manifest.history is None:
            return []
        database = Database.load(self.source, head.manifest.history, ObjectKind.HISTORY, limit=_HISTORY_LIMIT)
        try:
            return read_tags(database)
        finally:
            database.close()

    def meta(self, head: Head) -> bytes:
        """Fetch the meta information, JSON; empty if there is none.

        Raises
        ------
        ObjectMissingError, StorageError, BrokenRepositoryError
            It cannot be read.
        """
        if head.manifest.meta is None:
            return b""
        return read_small_object(self.source, head.manifest.meta, ObjectKind.META, limit=_META_LIMIT)

    def newest(self, head: Head) -> Revision:
        """Return the revision that a head names."""
        return self._revision(CatalogReference(b"", head.manifest.root, head.manifest.root_size))

    def tagged(self, head: Head, name: str) -> Revision:
        """Return the revision that has a tag.

        Raises
        ------
        BrokenRepositoryError
            There is no such tag.
        """
        for tag in self.tags(head):
            if tag.name == name:
                return self._revision(CatalogReference(b"", tag.root, tag.size))
        raise BrokenRepositoryError(f"{self.source} has no tag {name!r}")

    def _revision(self, root: CatalogReference) -> Revision:
        return Revision(self.source, root, catalogs=self._catalogs)
