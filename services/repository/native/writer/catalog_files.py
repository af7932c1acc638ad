"""From an empty database to a catalog in the storage: however many entries it has, memory is bounded."""

import secrets
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from services.repository.native.records import ContentHash, ObjectKind
from services.repository.native.storage.interface import NewObject, Storage
from services.repository.native.writer.catalog import create_schema
from services.repository.native.writer.compressor import Compressor

__all__ = ["CatalogFiles"]

_IN_MEMORY: Final = 20_000
"""Largest number of entries of catalogs that are made in memory: some 4 MB, and that again for a copy."""
_CACHE_KIB: Final = 8192


class CatalogFiles:
    """Writes nested catalogs; blocking, safe for several threads.

    Parameters
    ----------
    storage
        Gets them.
    temporary
        A directory for files that nothing needs after a kill.
    """

    def __init__(self, *, storage: Storage, compressor: Compressor, temporary: Path) -> None:
        self._storage = storage
        self._compressor = compressor
        self._temporary = temporary
        self.algorithm = compressor.algorithm
        """Algorithm of content hashes."""
        # Making the tables takes longer than filling those of a small catalog.
        self._empty = _empty(ContentHash.null(self.algorithm))

    def store(
        self, path: bytes, fill: Callable[[sqlite3.Connection], None], *, entries: int
    ) -> tuple[ContentHash, int]:
        """Write a catalog, and put it into the storage; return its name, and its size uncompressed, in bytes.

        Parameters
        ----------
        path
            Where it begins; a text in UTF-8.
        fill
            Adds its rows, the root's first; tables of entries, of what they consist of, and of counters are empty.
        entries
            How many there will be, about.

        Raises
        ------
        StorageError
            It cannot be stored.
        OSError
            It cannot be written.
        """
        if entries > _IN_MEMORY:
            return self._store_large(path, fill)
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            connection.deserialize(self._empty)
            _fill(connection, path, fill)
            content = connection.serialize()
        stored = self._compressor.compress(content)
        name = self._compressor.name(stored)
        self._storage.put([NewObject(name.path(ObjectKind.CATALOG), stored)])
        return name, len(content)

    def _store_large(self, path: bytes, fill: Callable[[sqlite3.Connection], None]) -> tuple[ContentHash, int]:
        plain = self._temporary / secrets.token_hex(8)
        stored = plain.with_suffix(".z")
        try:
            plain.write_bytes(self._empty)
            with closing(sqlite3.connect(plain, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = OFF")
                connection.execute("PRAGMA synchronous = OFF")
                connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                _fill(connection, path, fill)
            with plain.open("rb", buffering=0) as source, stored.open("xb", buffering=0) as sink:
                name = self._compressor.compress_stream(source, sink)
            self._storage.put_file(name.path(ObjectKind.CATALOG), stored)
            return name, plain.stat().st_size
        finally:
            plain.unlink(missing_ok=True)
            stored.unlink(missing_ok=True)


def _fill(connection: sqlite3.Connection, path: bytes, fill: Callable[[sqlite3.Connection], None]) -> None:
    connection.execute("BEGIN")
    fill(connection)
    connection.execute("INSERT INTO properties VALUES ('root_prefix', ?)", (path.decode(),))
    connection.execute("COMMIT")


def _empty(previous: ContentHash) -> bytes:
    """Return a catalog without entries and counters. Nothing in it is of the present: a layer alone decides its own."""
    properties = {"revision": "1", "last_modified": "0", "previous_revision": str(previous)}
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        create_schema(connection, properties)
        connection.execute("DELETE FROM statistics")
        return bytes(connection.serialize())
