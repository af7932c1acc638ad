"""A file catalog being written: rows, counters, properties of one SQLite database."""

import sqlite3
import stat
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final, Self

from services.common.errors import InvalidValueError
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.records import (
    CATALOG_SCHEMA,
    CATALOG_SCHEMA_REVISION,
    CATALOG_SCHEMA_VERSION,
    COUNTER_NAMES,
    COUNTERS,
    ContentHash,
    EntryFlag,
    path_hash,
)
from services.repository.native.writer.rows import DirectoryRow, Row, insert_rows

__all__ = ["PAGE_SIZE", "Catalog", "NestedCatalog", "create_schema"]

PAGE_SIZE: Final = 1024
"""What the stock tools write, and the client's cache is made for; in bytes."""

_WITHOUT_NANOSECONDS: Final = ("5", "6")
"""Schema revisions that lack nothing else: what the sixth one brought is a flag."""

_AT: Final = "WHERE md5path_1 = ? AND md5path_2 = ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedCatalog:
    """A catalog that has been stored, as the one above it needs to know it."""

    path: bytes
    """Where it begins, from the root of the repository."""
    name: ContentHash
    size: int
    """Size of the uncompressed catalog, in bytes."""
    root: DirectoryRow
    counters: Mapping[str, int] = field(default_factory=dict)
    """By `COUNTER_NAMES`: of it and everything below it."""


def create_schema(connection: sqlite3.Connection, properties: Mapping[str, str]) -> None:
    """Make the tables of an empty database, with the properties that all catalogs have besides given ones."""
    connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    connection.executescript(CATALOG_SCHEMA)
    given = {"schema": CATALOG_SCHEMA_VERSION, "schema_revision": CATALOG_SCHEMA_REVISION, **properties}
    connection.executemany("INSERT INTO properties VALUES (?, ?)", given.items())
    connection.executemany("INSERT INTO statistics VALUES (?, 0)", [(name,) for name in COUNTERS])


class Catalog:
    """A catalog in memory that is changed by a few rows; to be closed.

    Parameters
    ----------
    content
        The uncompressed database.
    where
        Names it in messages.
    """

    def __init__(self, content: bytes, *, where: str) -> None:
        self._where = where
        self.database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        """For those modules that change more of it than this one does."""
        try:
            self.database.deserialize(content)
            properties = dict(self.database.execute("SELECT key, value FROM properties"))
            self._upgrade(properties.get("schema_revision"))
            self.prefix = str(properties.get("root_prefix", "")).encode()
            """Path of its root; empty for the root catalog."""
            self.revision = int(properties.get("revision", 0))
        except (sqlite3.Error, ValueError) as error:
            self.database.close()
            raise BrokenRepositoryError(f"{where} is no catalog: {error}") from error
        except BaseException:
            self.database.close()
            raise

    def _upgrade(self, revision: str | None) -> None:
        """Bring a catalog that an older server has made to the present schema, as newer servers do."""
        if revision == CATALOG_SCHEMA_REVISION:
            return
        if revision not in _WITHOUT_NANOSECONDS:
            raise BrokenRepositoryError(
                f"{self._where} has the schema revision {revision}, only {CATALOG_SCHEMA_REVISION} can be continued; "
                "cvmfs_server 2.12 or newer brings an older one to it by publishing a change there"
            )
        self.database.execute("ALTER TABLE catalog ADD COLUMN mtimens INTEGER")
        self.set_properties({"schema_revision": CATALOG_SCHEMA_REVISION})

    @classmethod
    def create(cls, path: bytes, root: DirectoryRow, *, where: str) -> Self:
        """Make the nested catalog of a directory, which must not be the repository's root."""
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            create_schema(connection, {"root_prefix": path.decode(), "revision": "0"})
            insert_rows(connection, [root.row(path, EntryFlag.DIRECTORY | EntryFlag.NESTED_ROOT)])
            connection.execute("UPDATE statistics SET value = 1 WHERE counter = 'self_dir'")
            content = bytes(connection.serialize())
        return cls(content, where=where)

    def close(self) -> None:
        """Free the memory."""
        self.database.close()

    def nested(self, path: bytes) -> tuple[ContentHash, int] | None:
        """Return the name and the size of the catalog that begins at a path, if one does."""
        row = self.database.execute(
            "SELECT sha1, size FROM nested_catalogs WHERE path = CAST(? AS TEXT)", (path,)
        ).fetchone()
        try:
            return None if row is None else (ContentHash.parse(row[0]), row[1] or 0)
        except InvalidValueError as error:
            raise BrokenRepositoryError(f"{self._where}: {error}") from error

    def all_nested(self) -> list[tuple[bytes, ContentHash]]:
        """Return path and name of each catalog directly below."""
        rows = self.database.execute("SELECT CAST(path AS BLOB), sha1 FROM nested_catalogs")
        try:
            return [(path, ContentHash.parse(name)) for path, name in rows]
        except InvalidValueError as error:
            raise BrokenRepositoryError(f"{self._where}: {error}") from error

    def directory(self, path: bytes) -> DirectoryRow | None:
        """Return what is known of a directory; None where there is nothing.

        Raises
        ------
        BrokenRepositoryError
            Something else is there.
        """
        row = self.database.execute(
            f"SELECT mode, uid, gid, mtime, mtimens, hardlinks, xattr FROM catalog {_AT}",  # noqa: S608 - a constant
            path_hash(path),
        ).fetchone()
        if row is None:
            return None
        if not stat.S_ISDIR(row[0]):
            raise BrokenRepositoryError(f"{path.decode(errors='backslashreplace')} is no directory in the repository")
        return DirectoryRow(*row)

    def holds(self, path: bytes) -> bool:
        """Tell whether there is an entry at a path."""
        found = self.database.execute(f"SELECT 1 FROM catalog {_AT}", path_hash(path)).fetchone()  # noqa: S608
        return found is not None

    def names(self, path: bytes) -> list[bytes]:
        """Return what is in a directory."""
        rows = self.database.execute(
            "SELECT CAST(name AS BLOB) FROM catalog WHERE parent_1 = ? AND parent_2 = ?", path_hash(path)
        )
        return [name for (name,) in rows]

    def link_target(self, path: bytes) -> bytes | None:
        """Return the target of a symbolic link; None where something else is, or nothing."""
        row = self.database.execute(
            f"SELECT CAST(symlink AS BLOB) FROM catalog {_AT} AND flags & ?",  # noqa: S608
            (*path_hash(path), EntryFlag.SYMLINK.value),
        ).fetchone()
        return None if row is None else bytes(row[0])

    def insert(self, row: Row, counter: str) -> None:
        """Add an entry and count it."""
        insert_rows(self.database, [row])
        self.count({counter: 1, "self_xattr": int(row[-1] is not None)})

    def remove(self, path: bytes, counter: str) -> None:
        """Remove an entry, with nothing below it, and count it no more."""
        at = path_hash(path)
        (has_xattr,) = self.database.execute(f"SELECT xattr IS NOT NULL FROM catalog {_AT}", at).fetchone()  # noqa: S608
        self.database.execute(f"DELETE FROM catalog {_AT}", at)  # noqa: S608
        self.count({counter: -1, "self_xattr": -has_xattr})

    def link_directories(self, path: bytes, change: int) -> None:
        """Change how many directories one has in it, by its link count."""
        self.database.execute(
            f"UPDATE catalog SET hardlinks = hardlinks + ? {_AT}",  # noqa: S608
            (change, *path_hash(path)),
        )

    def attach(self, nested: NestedCatalog, *, before: Mapping[str, int] | None) -> None:
        """Say that a catalog begins at a path whose row is there.

        Parameters
        ----------
        nested
            The catalog.
        before
            What the catalog that has begun there so far counted; None where none has.
        """
        self.database.execute(
            "INSERT OR REPLACE INTO nested_catalogs VALUES (CAST(? AS TEXT), ?, ?)",
            (nested.path, str(nested.name), nested.size),
        )
        self.database.execute(
            f"UPDATE catalog SET hardlinks = ? {_AT}",  # noqa: S608
            (nested.root.links, *path_hash(nested.path)),
        )
        if before is None:
            self.count({"self_nested": 1})
        self._count_below(nested.counters, before or {})

    def detach(self, path: bytes, before: Mapping[str, int]) -> None:
        """Remove a directory whose catalog counted this, and the catalog with it."""
        self.database.execute("DELETE FROM nested_catalogs WHERE path = CAST(? AS TEXT)", (path,))
        self.remove(path, "self_dir")
        self.count({"self_nested": -1})
        self._count_below({}, before)

    def below(self) -> dict[str, int]:
        """Return what the catalogs below it count together."""
        found = dict(self.database.execute("SELECT counter, value FROM statistics"))
        return {name: found.get(f"subtree_{name}", 0) for name in COUNTER_NAMES}

    def counters(self) -> dict[str, int]:
        """Return what it counts of itself and of everything below it."""
        found = dict(self.database.execute("SELECT counter, value FROM statistics"))
        return {name: found.get(f"self_{name}", 0) + found.get(f"subtree_{name}", 0) for name in COUNTER_NAMES}

    def count(self, changes: Mapping[str, int]) -> None:
        """Add to counters."""
        self.database.executemany(
            "UPDATE statistics SET value = value + ? WHERE counter = ?",
            [(change, counter) for counter, change in changes.items() if change],
        )

    def property(self, key: str) -> str | None:
        """Return a property, if it has it."""
        found = self.database.execute("SELECT value FROM properties WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    def set_properties(self, properties: Mapping[str, str]) -> None:
        """Set properties."""
        self.database.executemany("INSERT OR REPLACE INTO properties VALUES (?, ?)", properties.items())

    def compact(self) -> None:
        """Close the gaps that removed rows have left: clients reserve inodes for all of them.

        VACUUM keeps the numbers of rows, so these are inserted anew.
        """
        for statement in (
            "CREATE TEMPORARY TABLE kept AS SELECT * FROM catalog ORDER BY rowid",
            "DELETE FROM catalog",
            "INSERT INTO catalog SELECT * FROM kept ORDER BY rowid",
            "DROP TABLE kept",
            "VACUUM",
        ):
            self.database.execute(statement)

    def content(self) -> bytes:
        """Return the uncompressed database."""
        return bytes(self.database.serialize())

    def _count_below(self, after: Mapping[str, int], before: Mapping[str, int]) -> None:
        self.count({f"subtree_{name}": after.get(name, 0) - before.get(name, 0) for name in COUNTER_NAMES})
