"""Which objects revisions reach."""

from collections.abc import Iterator
from contextlib import closing
from typing import Final

from services.repository.native.collection.ledger import Ledger
from services.repository.native.collection.names import pack
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.reader.catalog import Catalog, CatalogReference
from services.repository.native.reader.database import DATABASE_LIMIT, Database
from services.repository.native.reader.entries import hash_algorithm_of
from services.repository.native.records import (
    DIGEST_SIZE,
    ContentHash,
    EntryFlag,
    ObjectKind,
)
from services.repository.native.storage.interface import Storage

__all__ = ["reach_tree"]

_FILES: Final = "SELECT DISTINCT hash, flags FROM catalog WHERE hash IS NOT NULL AND NOT flags & ?"
_CHUNKS: Final = (
    "SELECT DISTINCT chunks.hash, flags FROM chunks JOIN catalog USING (md5path_1, md5path_2) WHERE NOT flags & ?"
)


def reach_tree(storage: Storage, root: ContentHash, ledger: Ledger, *, path: bytes = b"") -> None:
    """Write down everything that a catalog reaches; what was reached before is not looked into again.

    Parameters
    ----------
    storage
        Where the repository is.
    root
        The catalog.
    ledger
        Where it is written down.
    path
        The directory whose catalog it is; by default the root of the repository.

    Raises
    ------
    ObjectMissingError, StorageError, BrokenRepositoryError
        A catalog is missing or damaged. Nothing may be deleted then: what it reaches is not known.
    """
    waiting = [CatalogReference(path, root, None)]
    while waiting:
        reference = waiting.pop()
        name = pack(reference.hash.digest, ObjectKind.CATALOG, reference.hash.algorithm)
        if ledger.reaches(name):
            continue
        database = Database.load(storage, reference.hash, ObjectKind.CATALOG, limit=reference.size or DATABASE_LIMIT)
        with closing(Catalog(database, path=reference.path)) as catalog:
            ledger.reach(_objects(catalog, _FILES, ObjectKind.FILE))
            ledger.reach(_objects(catalog, _CHUNKS, ObjectKind.CHUNK))
            waiting.extend(catalog.all_nested())
        # Only now, so that a catalog that could not be read to its end is never taken for one that was.
        ledger.reach([name])


def _objects(catalog: Catalog, query: str, kind: ObjectKind) -> Iterator[bytes]:
    for digest, flags in catalog.database.rows(query, (EntryFlag.EXTERNAL.value,)):
        algorithm = hash_algorithm_of(flags)
        if not isinstance(digest, bytes) or len(digest) != DIGEST_SIZE or algorithm is None:
            raise BrokenRepositoryError(f"{catalog.database.name} names an object by {digest!r}, which is no hash")
        yield pack(digest, kind, algorithm)
