"""From rows to a catalog in the storage: however many entries it has, memory is bounded."""

import secrets
import sqlite3
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Final

from services.repository.native.flat.contents import Below, FlatContents
from services.repository.native.flat.kept_rows import KeptRows
from services.repository.native.records import ObjectKind
from services.repository.native.storage.interface import Storage
from services.repository.native.writer.catalog_rows import CatalogRows, empty_catalog, fill_catalog
from services.repository.native.writer.compressor import Compressor
from services.repository.native.writer.pool import CountedCatalog, StoredCatalog, WorkerPool

__all__ = ["CatalogFiles"]

_IN_MEMORY: Final = 20_000
"""Largest number of entries of catalogs that are made in memory: some 4 MB, and that again for their rows."""
_CACHE_KIB: Final = 8192


class CatalogFiles:
    """Writes catalogs of layers; blocking, safe for several threads.

    Parameters
    ----------
    storage
        Gets them.
    pool
        Makes those that are not large.
    temporary
        A directory for files that nothing needs after a kill.
    """

    def __init__(self, *, storage: Storage, compressor: Compressor, pool: WorkerPool, temporary: Path) -> None:
        self._storage = storage
        self._compressor = compressor
        self._pool = pool
        self._temporary = temporary
        self.algorithm = compressor.algorithm
        """Algorithm of content hashes."""
        self._empty = empty_catalog(self.algorithm)
        self.kept = KeptRows()
        """Rows of the catalogs of layers that have been written last."""

    def store(self, rows: CatalogRows, *, entries: int) -> "Future[StoredCatalog]":
        """Write a catalog, and put it into the storage, whose staged files are the pool's.

        Parameters
        ----------
        rows
            What is in it; all of it has been taken when this returns.
        entries
            How many entries there will be, about.

        Returns
        -------
        Future
            Its name, and its size uncompressed, in bytes; or StorageError, where it cannot be stored.

        Raises
        ------
        StorageError
            It cannot be stored.
        OSError
            It cannot be written.
        """
        if entries <= _IN_MEMORY:
            packed = rows.pack()
            stored = self._pool.store_catalog(packed)
            stored.add_done_callback(lambda made: self._keep(made, packed))
            return stored
        done: Future[StoredCatalog] = Future()
        done.set_result(self._store_large(rows))
        return done

    def _keep(self, made: "Future[StoredCatalog]", packed: bytes) -> None:
        if made.exception() is None:
            self.kept.put(made.result().name, packed)

    def store_flat(self, contents: FlatContents, below: Iterable[Below], *, entries: int) -> "Future[CountedCatalog]":
        """Write a catalog of a flat image, and put it into the storage. Errors as `store`.

        Parameters
        ----------
        contents
            What it is made of.
        below
            The catalogs directly below it; all of them have been taken when this returns.
        entries
            How many entries there will be, about.

        Raises
        ------
        BrokenRepositoryError
            A row of a layer is not as the format has it.
        """
        if entries <= _IN_MEMORY:
            return self._pool.store_flat(contents, below)
        rows, counters = contents.rows(list(below))
        done: Future[CountedCatalog] = Future()
        done.set_result(CountedCatalog(*self._store_large(rows), counters))
        return done

    def _store_large(self, rows: CatalogRows) -> StoredCatalog:
        plain = self._temporary / secrets.token_hex(8)
        stored = plain.with_suffix(".z")
        try:
            plain.write_bytes(self._empty)
            with closing(sqlite3.connect(plain, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = OFF")
                connection.execute("PRAGMA synchronous = OFF")
                connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                fill_catalog(connection, rows)
            with plain.open("rb", buffering=0) as source, stored.open("xb", buffering=0) as sink:
                name = self._compressor.compress_stream(source, sink)
            self._storage.put_file(name.path(ObjectKind.CATALOG), stored)
            return StoredCatalog(name, plain.stat().st_size)
        finally:
            plain.unlink(missing_ok=True)
            stored.unlink(missing_ok=True)
