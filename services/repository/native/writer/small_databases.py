"""SQLite files that are small enough to be changed in memory: the tag database and the reference log."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Final

from services.repository.native.errors import BrokenRepositoryError

__all__ = ["create_database", "open_database"]

_MAGIC: Final = b"SQLite format 3\0"
_PAGE_SIZE: Final = 1024
"""What the stock tools write, in bytes."""


@contextmanager
def create_database(schema: str, properties: Mapping[str, str]) -> Iterator[sqlite3.Connection]:
    """Make an empty database; what it has become is read with `serialize` before the context ends."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
        connection.executescript(schema)
        connection.executemany("INSERT INTO properties VALUES (?, ?)", properties.items())
        connection.commit()
        yield connection


@contextmanager
def open_database(content: bytes, what: str, properties: Mapping[str, str]) -> Iterator[sqlite3.Connection]:
    """Open a database as it was stored.

    Parameters
    ----------
    what
        Names it in errors.
    properties
        Some that it must have, with their values.

    Raises
    ------
    BrokenRepositoryError
        It is no such database.
    """
    if not content.startswith(_MAGIC):
        raise BrokenRepositoryError(f"{what} is damaged: it is no SQLite file")
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.deserialize(content)
            found = dict(connection.execute("SELECT key, value FROM properties"))
        except sqlite3.DatabaseError as error:
            raise BrokenRepositoryError(f"{what} is damaged: {error}") from error
        for key, value in properties.items():
            if found.get(key) != value:
                raise BrokenRepositoryError(f"{what} has the {key} {found.get(key)!r}, not {value!r}")
        try:
            yield connection
        except sqlite3.DatabaseError as error:
            raise BrokenRepositoryError(f"{what} is damaged: {error}") from error
