"""The revisions of a repository, from its head back along the predecessors that root catalogs name."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from services.common.errors import InvalidValueError
from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError
from services.repository.native.reader.catalog import Catalog
from services.repository.native.reader.database import Database
from services.repository.native.records import ContentHash, ObjectKind
from services.repository.native.storage.interface import Storage
from services.repository.native.writer.manifest import Manifest

__all__ = ["RevisionRecord", "read_revision", "revisions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionRecord:
    """What a root catalog says of its revision."""

    root: ContentHash
    size: int
    """Size of the uncompressed root catalog, in bytes."""
    revision: int
    published: int
    """Unix seconds."""
    previous: ContentHash
    """The root catalog before it, or the null hash."""


def revisions(storage: Storage, head: Manifest) -> Iterator[RevisionRecord]:
    """Iterate over the revisions that are still there, newest first.

    Raises
    ------
    ObjectMissingError
        The head's root catalog is missing.
    StorageError, BrokenRepositoryError
        A root catalog cannot be read.
    """
    record = read_revision(storage, head.root)
    while True:
        yield record
        if record.previous.is_null:
            return
        try:
            record = read_revision(storage, record.previous)
        except ObjectMissingError:
            return  # it has been collected


def read_revision(storage: Storage, root: ContentHash) -> RevisionRecord:
    """Read one root catalog.

    Raises
    ------
    ObjectMissingError
        It is missing.
    StorageError, BrokenRepositoryError
        It cannot be read.
    """
    with closing(Catalog(Database.load(storage, root, ObjectKind.CATALOG), path=b"")) as catalog:
        properties = catalog.properties
        try:
            return RevisionRecord(
                root=root,
                size=catalog.database.size,
                revision=catalog.revision,
                published=int(properties.get("last_modified", "0")),
                previous=ContentHash.parse(properties.get("previous_revision", str(ContentHash.null()))),
            )
        except (InvalidValueError, ValueError) as error:
            raise BrokenRepositoryError(f"{catalog.database.name}: a property is malformed: {error}") from error
