"""A layer's catalog as rows, and the database that they become."""

import marshal
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from typing import NamedTuple

from services.repository.native.records import ContentHash, HashAlgorithm
from services.repository.native.writer.catalog import create_schema
from services.repository.native.writer.row_pages import RootPages, add_rows
from services.repository.native.writer.rows import Row, insert_rows

__all__ = ["CatalogRows", "empty_catalog", "fill_catalog", "make_catalog"]


class CatalogRows(NamedTuple):
    """All that one catalog has of its own; iterated over once, in this order."""

    path: bytes
    """Where it begins; a text in UTF-8."""
    entries: Iterable[Row]
    """The root's first."""
    chunks: Iterable[tuple[int, int, int, int, bytes]]
    """Path hash, offset, size and digest of each object of large files."""
    nested: Iterable[tuple[bytes, str, int]]
    """Path, name and size of each catalog directly below."""
    counters: Iterable[tuple[str, int]]
    """The statistics."""
    properties: Iterable[tuple[str, str]] = ()
    """What it says of itself besides what all catalogs do; clients look at none of it."""

    def pack(self) -> bytes:
        """Write it for another process of the same Python; its numbers are plain ones, and no flags."""
        return marshal.dumps((self.path, *map(list, self[1:])))

    @classmethod
    def unpack(cls, packed: bytes | memoryview) -> "CatalogRows":
        """Read what `pack` has written, here or in another process of this program."""
        return cls(*marshal.loads(packed))  # noqa: S302 - from a socket that nobody else has


def empty_catalog(algorithm: HashAlgorithm) -> bytes:
    """Return a database without entries and counters: making the tables takes longer than filling small ones.

    Nothing in it is of the present: a layer alone decides its catalogs.
    """
    null = ContentHash.null(algorithm)
    properties = {"revision": "1", "last_modified": "0", "previous_revision": str(null)}
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        create_schema(connection, properties)
        connection.execute("DELETE FROM statistics")
        return bytes(connection.serialize())


def fill_catalog(connection: sqlite3.Connection, rows: CatalogRows) -> None:
    """Add the rows to an empty catalog."""
    connection.execute("BEGIN")
    insert_rows(connection, rows.entries)
    _fill_other_tables(connection, rows)
    connection.execute("COMMIT")


def make_catalog(empty: bytes, rows: CatalogRows) -> bytes:
    """Return a catalog's uncompressed database, made in memory; its numbers are plain ones, and no flags."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.deserialize(empty)
        # Nobody goes on with it where this fails.
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("BEGIN")
        _fill_other_tables(connection, rows)
        connection.execute("COMMIT")
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_schema"))
        other = bytes(connection.serialize())
    places = RootPages(roots["catalog"], roots["sqlite_autoindex_catalog_1"], roots["idx_catalog_parent"])
    return add_rows(other, places, list(rows.entries))


def _fill_other_tables(connection: sqlite3.Connection, rows: CatalogRows) -> None:
    connection.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?, ?)", rows.chunks)
    connection.executemany("INSERT INTO nested_catalogs VALUES (CAST(? AS TEXT), ?, ?)", rows.nested)
    connection.executemany("INSERT INTO statistics VALUES (?, ?)", rows.counters)
    connection.execute("INSERT INTO properties VALUES ('root_prefix', ?)", (rows.path.decode(),))
    connection.executemany("INSERT INTO properties VALUES (?, ?)", rows.properties)
