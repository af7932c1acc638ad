"""The tag database: names of revisions, which clients can be pinned to and garbage collectors keep.

`trunk` is the head and `trunk-previous` the one before it, as the stock tools have them. All other names are people's.
"""

import re
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Self

from services.common.errors import InvalidValueError
from services.common.repository_name import RepositoryName
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.records import (
    HISTORY_SCHEMA,
    HISTORY_SCHEMA_REVISION,
    HISTORY_SCHEMA_VERSION,
    ContentHash,
)
from services.repository.native.writer.manifest import Root
from services.repository.native.writer.small_databases import create_database, open_database

__all__ = ["TRUNK", "TRUNK_PREVIOUS", "History", "Tag", "TagName"]

TRUNK: Final = "trunk"
"""The head."""
TRUNK_PREVIOUS: Final = "trunk-previous"
"""The head before it."""
_WHAT: Final = "the tag database"
_SCHEMA: Final = {"schema": HISTORY_SCHEMA_VERSION, "schema_revision": HISTORY_SCHEMA_REVISION}
_NAME: Final = re.compile(r"[A-Za-z0-9_./:-]{1,255}")
_COLUMNS: Final = "name, hash, size, revision, timestamp, description"


class TagName(str):
    """Name of a tag that people give: `[A-Za-z0-9_./:-]`, and none that means the head.

    Raises
    ------
    InvalidValueError
        The value is anything else.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        """Check the form once, at the boundary."""
        if not _NAME.fullmatch(value):
            raise InvalidValueError(f"not a name of a tag ([A-Za-z0-9_./:-], at most 255 characters): {value[:80]!r}")
        if value in (TRUNK, TRUNK_PREVIOUS):
            raise InvalidValueError(f"the tag {value} is kept by the publisher itself")
        return super().__new__(cls, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A name of a revision."""

    name: str
    root: ContentHash
    """The revision's root catalog."""
    size: int
    """Size of the uncompressed root catalog, in bytes."""
    revision: int
    timestamp: int
    """When the revision was published, in Unix seconds."""
    description: str


class History:
    """Changes and reads tag databases, which are given and returned uncompressed.

    Every change starts from the database so far, so that what other tools have written into it stays.
    """

    def advance(self, current: bytes | None, *, previous: ContentHash, name: RepositoryName, root: Root) -> bytes:
        """Return the database whose `trunk` is the new root.

        Parameters
        ----------
        current
            The database so far; None where there is none.
        previous
            Its content hash, or the null hash.
        name
            The repository.
        root
            The new root.

        Raises
        ------
        BrokenRepositoryError
            The database so far is damaged, or of another repository.
        """
        with _open(current, name) as connection:
            trunk = next((tag for tag in _tags(connection) if tag.name == TRUNK), None)
            if trunk is not None:
                _put(connection, replace(trunk, name=TRUNK_PREVIOUS, description="default undo target"))
            tag = Tag(
                name=TRUNK,
                root=root.catalog,
                size=root.size,
                revision=root.revision,
                timestamp=root.published,
                description="current HEAD",
            )
            _put(connection, tag)
            return _finish(connection, previous)

    def add(self, current: bytes, tag: Tag, *, previous: ContentHash, name: RepositoryName) -> bytes:
        """Return the database with a tag, which may replace one; otherwise as `advance`."""
        with _open(current, name) as connection:
            _put(connection, tag)
            return _finish(connection, previous)

    def remove(self, current: bytes, tags: Collection[str], *, previous: ContentHash, name: RepositoryName) -> bytes:
        """Return the database without some tags; otherwise as `advance`."""
        with _open(current, name) as connection:
            connection.executemany("DELETE FROM tags WHERE name = ?", [(tag,) for tag in tags])
            return _finish(connection, previous)

    def read(self, current: bytes, *, name: RepositoryName) -> list[Tag]:
        """Return the tags, the newest revision first; errors as `advance`."""
        with _open(current, name) as connection:
            return _tags(connection)

    def previous(self, current: bytes, *, name: RepositoryName) -> ContentHash:
        """Return the hash of the database before it, or the null hash; errors as `advance`."""
        with _open(current, name) as connection:
            row = connection.execute("SELECT value FROM properties WHERE key = 'previous_revision'").fetchone()
        try:
            return ContentHash.null() if row is None else ContentHash.parse(row[0])
        except InvalidValueError as error:
            raise BrokenRepositoryError(f"{_WHAT} is damaged: {error}") from error


@contextmanager
def _open(current: bytes | None, name: RepositoryName) -> Iterator[sqlite3.Connection]:
    properties = {**_SCHEMA, "fqrn": name}
    if current is not None:
        with open_database(current, _WHAT, properties) as connection:
            yield connection
    else:
        with create_database(HISTORY_SCHEMA, properties) as connection:
            connection.execute("INSERT INTO branches VALUES ('', NULL, 0)")
            yield connection


def _tags(connection: sqlite3.Connection) -> list[Tag]:
    try:
        return [
            Tag(
                name=name,
                root=ContentHash.parse(root),
                size=size,
                revision=revision,
                timestamp=timestamp,
                description=description or "",
            )
            for name, root, size, revision, timestamp, description in connection.execute(
                f"SELECT {_COLUMNS} FROM tags ORDER BY revision DESC, name"  # noqa: S608 - a constant
            )
        ]
    except InvalidValueError as error:
        raise BrokenRepositoryError(f"{_WHAT} is damaged: {error}") from error


def _put(connection: sqlite3.Connection, tag: Tag) -> None:
    row = (tag.name, str(tag.root), tag.size, tag.revision, tag.timestamp, tag.description)
    connection.execute(
        f"INSERT OR REPLACE INTO tags ({_COLUMNS}, channel, branch) VALUES (?, ?, ?, ?, ?, ?, 0, '')",  # noqa: S608
        row,
    )


def _finish(connection: sqlite3.Connection, previous: ContentHash) -> bytes:
    connection.execute("INSERT OR REPLACE INTO properties VALUES ('previous_revision', ?)", (str(previous),))
    connection.commit()
    connection.execute("VACUUM")
    return bytes(connection.serialize())
