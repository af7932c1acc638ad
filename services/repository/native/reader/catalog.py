"""File catalogs: databases that hold the entries of a subtree."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from services.common.errors import InvalidValueError
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.reader.database import Database
from services.repository.native.reader.entries import Chunk, Entry, Row, show_path
from services.repository.native.records import DIGEST_SIZE, ContentHash, path_hash

__all__ = ["Catalog", "CatalogReference"]

_SCHEMA: Final = "2.5"
_NO_NAMES: Final = frozenset({b"", b".", b".."})
_UNFIT: Final = re.compile(rb"[/\0]")
"""What no name has in it."""
_REVISIONS: Final = {"nested size": 1, "xattr": 2, "bind_mountpoints": 4, "mtimens": 7}
"""Schema revision that brought a column or table; what an older catalog lacks reads as NULL."""


class CatalogReference(NamedTuple):
    """Where a catalog, or the manifest, says that another catalog is."""

    path: bytes
    """Directory that is the catalog's root; the repository's root is empty."""
    hash: ContentHash
    size: int | None
    """Of the uncompressed catalog, in bytes; None where it is not told."""


class Catalog:
    """One catalog, open.

    Parameters
    ----------
    database
        Its file, which the catalog closes, also where it raises.
    path
        Directory that is its root.

    Raises
    ------
    BrokenRepositoryError
        Its schema is not one that clients read, or it is the catalog of another directory.
    """

    def __init__(self, database: Database, *, path: bytes) -> None:
        self.database = database
        self.path = path
        try:
            self._look()
        except BaseException:
            self.close()
            raise

    def _look(self) -> None:
        """See what it is."""
        self.properties = self.database.properties()
        schema = self.properties.get("schema")
        if schema != _SCHEMA:
            raise BrokenRepositoryError(f"{self.database.name} has the schema {schema}: clients read {_SCHEMA} only")
        self.schema_revision = self._number("schema_revision", default=0)
        prefix = self.properties.get("root_prefix", "")
        if prefix != self.path.decode(errors="backslashreplace"):
            raise BrokenRepositoryError(
                f"{self.database.name} is the catalog of {prefix or '/'} by its root_prefix, "
                f"not that of {show_path(self.path)}"
            )
        self._columns = ", ".join(
            column if self._has(column) else f"NULL AS {column}" for column in ("rowid", *Row._fields[1:])
        )

    def _has(self, name: str) -> bool:
        return self.schema_revision >= _REVISIONS.get(name, 0)

    def _number(self, key: str, *, default: int | None = None) -> int:
        text = self.properties.get(key)
        if text is None and default is not None:
            return default
        try:
            return int(text or "")
        except ValueError:
            raise BrokenRepositoryError(
                f"{self.database.name}: the property {key} is {text!r}, which is no number"
            ) from None

    @property
    def revision(self) -> int:
        """Its own revision."""
        return self._number("revision", default=0)

    def close(self) -> None:
        """Give its file back."""
        self.database.close()

    def row(self, path: bytes) -> Row | None:
        """Find the row of a path."""
        found = self.database.first(
            f"SELECT {self._columns} FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?",  # noqa: S608 - column names
            path_hash(path),
        )
        return None if found is None else Row(*found)

    def entry(self, path: bytes) -> Entry | None:
        """Find an entry.

        Raises
        ------
        BrokenRepositoryError
            Its row is malformed.
        """
        row = self.row(path)
        return None if row is None else Entry.of(row, path)

    def children(self, path: bytes) -> Iterator[Entry]:
        """Iterate over the entries of a directory of this catalog in the order of their names, hidden ones included.

        Raises
        ------
        BrokenRepositoryError
            A row is malformed.
        """
        rows = self.database.rows(
            f"SELECT {self._columns} FROM catalog WHERE parent_1 = ? AND parent_2 = ? ORDER BY CAST(name AS BLOB)",  # noqa: S608
            path_hash(path),
        )
        for found in rows:
            row = Row(*found)
            # Whoever writes what is read here must not be led out of its directory.
            if not isinstance(row.name, bytes) or row.name in _NO_NAMES or _UNFIT.search(row.name):
                raise BrokenRepositoryError(f"{show_path(path)}: an entry has the name {str(row.name)[:300]}")
            yield Entry.of(row, path + b"/" + row.name)

    def rows(self, condition: str = "1") -> Iterator[Row]:
        """Iterate over all rows that meet an SQL condition."""
        query = f"SELECT {self._columns} FROM catalog WHERE {condition}"  # noqa: S608 - the caller's constant
        for found in self.database.rows(query):
            yield Row(*found)

    def judge(self, query: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """Iterate over what a query finds in the table `entry`: all rows, with the columns of the newest schema."""
        entry = f"WITH entry AS NOT MATERIALIZED (SELECT {self._columns} FROM catalog) "  # noqa: S608 - column names
        return self.database.rows(entry + query, parameters)

    def chunks(self, entry: Entry) -> Iterator[Chunk]:
        """Iterate over the chunks of a file in their order.

        Raises
        ------
        BrokenRepositoryError
            They leave a gap, overlap, or have not the file's size together.
        """
        end = 0
        rows = self.database.rows(
            "SELECT offset, size, hash FROM chunks WHERE md5path_1 = ? AND md5path_2 = ? ORDER BY offset, size",
            path_hash(entry.path),
        )
        for offset, size, digest in rows:
            if not isinstance(size, int) or not isinstance(digest, bytes) or len(digest) != DIGEST_SIZE or size < 0:
                raise BrokenRepositoryError(f"{show_path(entry.path)}: its chunk at {offset!r} has the wrong form")
            if offset != end:
                raise BrokenRepositoryError(
                    f"{show_path(entry.path)}: after byte {end} its next chunk begins at {offset!r}"
                )
            yield Chunk(offset, size, ContentHash(digest, entry.algorithm))
            end += size
        if end != entry.size:
            raise BrokenRepositoryError(f"{show_path(entry.path)}: its chunks have {end} bytes, and it {entry.size}")

    def nested(self, path: bytes) -> CatalogReference | None:
        """Find the catalog whose root is a directory."""
        found = self.database.first(
            f"SELECT path, sha1, {self._nested_size} FROM nested_catalogs WHERE path = CAST(? AS TEXT)",  # noqa: S608
            (path,),
        )
        return None if found is None else self._reference(found)

    def all_nested(self) -> Iterator[CatalogReference]:
        """Iterate over the references to catalogs directly below."""
        for found in self.database.rows(f"SELECT path, sha1, {self._nested_size} FROM nested_catalogs"):  # noqa: S608
            yield self._reference(found)

    @property
    def _nested_size(self) -> str:
        return "size" if self._has("nested size") else "NULL"

    def bind_mountpoint(self, path: bytes) -> CatalogReference | None:
        """Find the root catalog of another revision that is shown at a directory."""
        if not self._has("bind_mountpoints"):
            return None
        found = self.database.first(
            "SELECT path, sha1, size FROM bind_mountpoints WHERE path = CAST(? AS TEXT)", (path,)
        )
        return None if found is None else self._reference(found)

    def all_bind_mountpoints(self) -> Iterator[CatalogReference]:
        """Iterate over the references to the root catalogs of other revisions."""
        if self._has("bind_mountpoints"):
            for found in self.database.rows("SELECT path, sha1, size FROM bind_mountpoints"):
                yield self._reference(found)

    def _reference(self, row: tuple[Any, ...]) -> CatalogReference:
        path, text, size = row
        if not isinstance(path, bytes) or not path.startswith(b"/"):
            raise BrokenRepositoryError(f"{self.database.name} has a nested catalog at {path!r}, which is no path")
        try:
            hash_ = ContentHash.parse(text.decode("ascii"))
        except (InvalidValueError, AttributeError, UnicodeDecodeError):
            raise BrokenRepositoryError(f"{show_path(path)}: the hash of its nested catalog is {text!r}") from None
        if size is not None and not isinstance(size, int):
            raise BrokenRepositoryError(f"{show_path(path)}: the size of its nested catalog is {size!r}")
        return CatalogReference(path, hash_, size)

    def counters(self) -> dict[str, int]:
        """Return the table `statistics`.

        Raises
        ------
        BrokenRepositoryError
            It is not there, or does not hold numbers.
        """
        counters: dict[str, int] = {}
        for counter, value in self.database.rows("SELECT counter, value FROM statistics"):
            if not isinstance(counter, bytes) or not isinstance(value, int):
                raise BrokenRepositoryError(f"{self.database.name}: the counter {counter!r} is {value!r}")
            counters[counter.decode(errors="backslashreplace")] = value
        return counters
