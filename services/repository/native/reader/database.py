"""SQLite files of a repository: fetched, verified, and opened for nothing but reading."""

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final, Self
from urllib.parse import quote

from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.reader.objects import read_object
from services.repository.native.reader.source import Source
from services.repository.native.records import ContentHash, ObjectKind

__all__ = ["DATABASE_LIMIT", "Database"]

DATABASE_LIMIT: Final = 4 << 30
"""Largest database that is read, in bytes: a catalog of 25 million entries."""

Parameters = Sequence[Any] | Mapping[str, Any]
"""Of a query."""

_MAGIC: Final = b"SQLite format 3\0"
_ROLLBACK: Final = b"\x01\x01"
"""Bytes 18 and 19 of a file that uses a rollback journal."""
_VERSIONS: Final = slice(18, 20)
_HEADER_SIZE: Final = 100


class Database:
    """An open SQLite file; threads may share it.

    A hostile file costs its reader an error: the file cannot be written, its views and triggers may call nothing, and
    SQLite checks the cells of its pages.

    Parameters
    ----------
    pieces
        The file's content.
    name
        What to call it in errors.

    Raises
    ------
    BrokenRepositoryError
        It is no SQLite file, or not one that clients can read.
    """

    def __init__(self, pieces: Iterable[bytes], *, name: str) -> None:
        self.name = name
        self.size = 0
        # A file, and not memory: a catalog of a million entries has 170 MB, of which a look-up needs a few pages.
        with tempfile.NamedTemporaryFile(prefix="catalog-") as file:
            for piece in pieces:
                self.size += file.write(piece)
            file.flush()
            _check_header(os.pread(file.fileno(), _HEADER_SIZE, 0), name)
            self._connection = sqlite3.connect(
                f"file:{quote(file.name)}?mode=ro&immutable=1", uri=True, check_same_thread=False, isolation_level=None
            )
            self._connection.text_factory = bytes
            try:
                # SQLite opens the file at its first use; afterwards it needs no name.
                self._prepare()
            except BaseException:
                self.close()
                raise

    def _prepare(self) -> None:
        for setting in ("trusted_schema = OFF", "cell_size_check = ON", "query_only = ON"):
            self._connection.execute(f"PRAGMA {setting}")
        (encoding,) = self.row("PRAGMA encoding")
        if encoding != b"UTF-8":
            raise BrokenRepositoryError(f"{self.name} has the encoding {encoding.decode()}: clients need UTF-8")

    @classmethod
    def load(cls, source: Source, hash_: ContentHash, kind: ObjectKind, *, limit: int = DATABASE_LIMIT) -> Self:
        """Fetch, verify and open a database that is an object.

        Raises
        ------
        ObjectMissingError, StorageError, BrokenRepositoryError
            As `read_object`, and as the constructor.
        """
        return cls(read_object(source, hash_, kind, limit=limit), name=hash_.path(kind))

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    def rows(self, query: str, parameters: Parameters = ()) -> Iterator[tuple[Any, ...]]:
        """Iterate over the rows of a query; text is bytes.

        Raises
        ------
        BrokenRepositoryError
            The file is damaged, or lacks a table or column.
        """
        try:
            with closing(self._connection.cursor()) as cursor:
                yield from cursor.execute(query, parameters)
        except (sqlite3.Error, UnicodeDecodeError) as error:  # of a damaged schema even the message is no text
            raise BrokenRepositoryError(f"{self.name} is no sound SQLite file of its kind: {error}") from None

    def row(self, query: str, parameters: Parameters = ()) -> tuple[Any, ...]:
        """Return the only row of a query that has exactly one."""
        (row,) = self.rows(query, parameters)
        return row

    def first(self, query: str, parameters: Parameters = ()) -> tuple[Any, ...] | None:
        """Return the first row of a query, if it has any."""
        return next(self.rows(query, parameters), None)

    def properties(self) -> dict[str, str]:
        """Return the table `properties`, which every kind of database has.

        Raises
        ------
        BrokenRepositoryError
            It is not there, or does not hold text.
        """
        properties: dict[str, str] = {}
        for key, value in self.rows("SELECT key, value FROM properties"):
            if not isinstance(key, bytes) or not isinstance(value, bytes):
                raise BrokenRepositoryError(f"{self.name}: the property {key!r} holds {value!r}, which is no text")
            properties[_text(key)] = _text(value)
        return properties


def _text(value: bytes) -> str:
    return value.decode(errors="backslashreplace")


def _check_header(header: bytes, name: str) -> None:
    if not header.startswith(_MAGIC):
        raise BrokenRepositoryError(f"{name} is no SQLite file")
    if header[_VERSIONS] != _ROLLBACK:
        raise BrokenRepositoryError(f"{name} is in WAL mode, which makes clients abort")
