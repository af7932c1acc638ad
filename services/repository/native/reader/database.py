"""SQLite files of a repository: fetched, verified, and opened for nothing but reading."""

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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

_MADE_UP: Final = """
    SELECT name FROM pragma_table_list WHERE schema = 'main' AND type != 'table'
    UNION ALL
    SELECT tables.name FROM pragma_table_list AS tables, pragma_table_xinfo(tables.name) AS columns
    WHERE tables.schema = 'main' AND columns.hidden
"""
"""Names of views, virtual tables and tables with computed columns."""
_VALUE_LIMIT: Final = 32 << 20
"""Largest value that is read, in bytes: 255 attributes of the largest size have half of that."""
_STEPS: Final = 100_000
"""Of SQLite's virtual machine, between two looks at how many a query has taken."""
_STEPS_PER_BYTE: Final = 50
"""Most that a query may take: a hundred times as many as the heaviest one of a check does."""
_LEAST_SIZE: Final = 64 << 10
"""Bytes that any file counts as."""


class Database:
    """An open SQLite file; threads may share it.

    A hostile file costs its reader an error: the file cannot be written, has plain tables only, so that no row is made
    up while it is read, SQLite checks the cells of its pages, and no query takes more steps than the file has room
    for: pages that lead to one another in circles have rows without end.

    Parameters
    ----------
    pieces
        The file's content.
    name
        What to call it in errors.

    Raises
    ------
    BrokenRepositoryError
        It is no SQLite file, or not one that clients can read, or it has views, or computed columns.
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
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _VALUE_LIMIT)
            self._steps_left = 0
            self._connection.set_progress_handler(self._spend, _STEPS)
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
        made_up = self.first(_MADE_UP)
        if made_up is not None:
            raise BrokenRepositoryError(
                f"{self.name} computes {_text(made_up[0])!r} instead of holding it, and could make up rows without end"
            )

    def _spend(self) -> bool:
        """Count steps, and tell SQLite whether to give up."""
        self._steps_left -= _STEPS
        return self._steps_left < 0

    @classmethod
    def load(cls, source: Source, hash_: ContentHash, kind: ObjectKind, *, limit: int = DATABASE_LIMIT) -> Self:
        """Fetch, verify and open a database that is an object of at most `limit` bytes, whoever has named that.

        Raises
        ------
        ObjectMissingError, StorageError, BrokenRepositoryError
            As `read_object`, and as the constructor.
        """
        pieces = read_object(source, hash_, kind, limit=min(limit, DATABASE_LIMIT))
        return cls(pieces, name=hash_.path(kind))

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
        # Of several queries at a time the youngest one's count is that of all, which ends those without end as well.
        self._steps_left = max(self.size, _LEAST_SIZE) * _STEPS_PER_BYTE
        try:
            with _closed(self._connection.cursor()) as cursor:
                # `yield from` would close the cursor as well.
                for row in cursor.execute(query, parameters):  # noqa: UP028
                    yield row
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise self._unsound(error) from None
            raise BrokenRepositoryError(
                f"{self.name} has more rows than a file of {self.size} bytes can hold: its pages lead in circles"
            ) from None
        except (sqlite3.Error, UnicodeDecodeError) as error:  # of a damaged schema even the message is no text
            raise self._unsound(error) from None

    def _unsound(self, error: Exception) -> BrokenRepositoryError:
        return BrokenRepositoryError(f"{self.name} is no sound SQLite file of its kind: {error}")

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


@contextmanager
def _closed(cursor: sqlite3.Cursor) -> Iterator[sqlite3.Cursor]:
    """Close a cursor, unless its file has been closed before: by whoever gave up in the middle of its rows."""
    try:
        yield cursor
    finally:
        with suppress(sqlite3.ProgrammingError):
            cursor.close()


def _text(value: bytes) -> str:
    return value.decode(errors="backslashreplace")


def _check_header(header: bytes, name: str) -> None:
    if not header.startswith(_MAGIC):
        raise BrokenRepositoryError(f"{name} is no SQLite file")
    if header[_VERSIONS] != _ROLLBACK:
        raise BrokenRepositoryError(f"{name} is in WAL mode, which makes clients abort")
