"""What content is there already: from the hash of a file's content to the object that holds it, compressed.

One SQLite file in the publisher's own state. It only saves work: where it is lost, content is compressed once more to
the same objects. It says nothing that could mislead: an object gets in when a revision that holds it is on the disk,
and whoever finds one looks whether the object is still there.
"""

import hashlib
import sqlite3
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from services.publisher.repository.native.errors import StorageError
from services.publisher.repository.native.records import DIGEST_SIZE, ObjectKind
from services.publisher.repository.native.storage.interface import Buffer

__all__ = ["CONTENT_KEY_SIZE", "ContentIndex", "NewRows", "content_key"]

CONTENT_KEY_SIZE: Final = 32
"""Size of the hash that content is found by, in bytes."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS content (key BLOB, kind TEXT, object BLOB NOT NULL, PRIMARY KEY (key, kind)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS content_object ON content (object);
"""
_FIND: Final = "SELECT object FROM content WHERE key = ? AND kind = ?"
_ADD: Final = "INSERT OR REPLACE INTO content VALUES (?, ?, ?)"

_ROW: Final = struct.Struct(f"{CONTENT_KEY_SIZE}sc{DIGEST_SIZE}s")
_NO_LETTER: Final = b" "


class NewRows:
    """Rows that wait until what they name is on the disk; 53 bytes each, as a layer may have a million."""

    __slots__ = ("_packed",)

    def __init__(self) -> None:
        self._packed = bytearray()

    def add(self, key: bytes, kind: ObjectKind, digest: bytes) -> None:
        """Add the object that holds some content.

        Parameters
        ----------
        key
            The hash of the content.
        kind
            Whole file or chunk: of the same content these are two objects.
        digest
            The object's content hash, in the repository's own algorithm.
        """
        self._packed += _ROW.pack(key, kind.encode() or _NO_LETTER, digest)

    def __iter__(self) -> Iterator[tuple[bytes, str, bytes]]:
        for key, kind, digest in _ROW.iter_unpack(self._packed):
            yield key, kind.strip(_NO_LETTER).decode(), digest


def content_key(content: Buffer) -> bytes:
    """Return the hash that content is found by."""
    return hashlib.sha256(content).digest()


class ContentIndex:
    """The index of one repository; blocking, one thread at a time, any number of processes.

    Parameters
    ----------
    path
        The SQLite file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._connection = self._opened()
        except sqlite3.DatabaseError:
            # It is no loss but of time, and a damaged one would stop every publish.
            for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
                name.unlink(missing_ok=True)
            self._connection = self._opened()

    def _opened(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
        except sqlite3.OperationalError as error:
            raise StorageError(f"{self.path} cannot be opened: {error}") from error
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # What a power failure takes from it is found anew.
            connection.execute("PRAGMA synchronous = OFF")
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def find(self, key: bytes, kind: ObjectKind) -> bytes | None:
        """Return the digest of the object that holds some content, if one is known."""
        row = self._connection.execute(_FIND, (key, kind)).fetchone()
        return None if row is None else row[0]

    def add(self, rows: Iterable[tuple[bytes, str, bytes]]) -> None:
        """Remember objects that are on the disk.

        Raises
        ------
        StorageError
            The file cannot be written.
        """
        self._change(_ADD, rows)

    def forget(self, digests: Iterable[bytes]) -> None:
        """Drop objects that are to be deleted."""
        self._change("DELETE FROM content WHERE object = ?", ((digest,) for digest in digests))

    def _change(self, statement: str, rows: Iterable[tuple[bytes | str, ...]]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(statement, rows)
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise StorageError(f"{self.path} cannot be written: {error}") from error

    def __len__(self) -> int:
        (count,) = self._connection.execute("SELECT count(*) FROM content").fetchone()
        return int(count)
