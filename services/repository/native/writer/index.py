"""What content is there already: from the hash of a file's content to the object that holds it, compressed.

One SQLite file in the publisher's own state. It only saves work: where it is lost or damaged, it is started anew, and
content is compressed once more to the same objects. It says nothing that could mislead: an object gets in when a
revision that holds it is on the disk, whoever finds one looks whether the object is still there, as far as that is
cheap, and each row has a checksum, which SQLite's pages have not.

Rows are written and looked for by the hundred, in the order of their keys, so that neighbours share a page. A
collection, which is rare and knows objects only, reads all of them.
"""

import fcntl
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from services.repository.native.errors import StorageError

__all__ = ["ContentIndex"]

_VERSION: Final = 2
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS content
(key BLOB, kind TEXT, object BLOB NOT NULL, checksum INTEGER NOT NULL, PRIMARY KEY (key, kind)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS agrees (one INTEGER PRIMARY KEY CHECK (one = 1), collections TEXT NOT NULL);
PRAGMA user_version = {_VERSION};
"""
_FIND: Final = "SELECT key, kind, object, checksum FROM content WHERE key IN ({})"
_AT_ONCE: Final = 256
"""Most keys that are looked for by one statement."""
_ADD: Final = "INSERT OR REPLACE INTO content VALUES (?, ?, ?, ?)"

_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def _checksum(key: bytes, kind: str, digest: bytes) -> int:
    return zlib.crc32(digest, zlib.crc32(key, zlib.crc32(kind.encode())))


@cache
def _marks(count: int) -> str:
    """Return so many placeholders of a statement."""
    return ", ".join("?" * count)


def _is_damage(error: sqlite3.Error) -> bool:
    """Tell whether the file is to blame, and not a full disk or another process."""
    # The low byte is the kind of error, what is above says more about it. Errors of Python's own have none.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


class _DamagedError(StorageError):
    """The file is no index, or only a part of one."""


class ContentIndex:
    """The index of one repository; blocking, one thread at a time, any number of processes.

    Whoever finds it damaged starts it anew; the other processes go over to the new file.

    Parameters
    ----------
    path
        The SQLite file.
    lost
        Called when what had been known is gone, whoever has found the damage.

    Raises
    ------
    StorageError
        It cannot be opened, for another reason than damage.
    """

    def __init__(self, path: Path, *, lost: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self._lost = lost
        with self._alone():
            try:
                self._connection = self._opened()
                damaged = False
            except _DamagedError:
                self._remove()
                self._connection = self._opened()
                damaged = True
            self._file = self._present()
        if damaged:
            lost()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from opening the file: one must not meet a part of the old one and of the new."""
        try:
            lock = os.open(self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _opened(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                # What a power failure takes from it is found anew, and what it mixes up is damage.
                connection.execute("PRAGMA synchronous = OFF")
                if connection.execute("PRAGMA user_version").fetchone() != (_VERSION,):
                    connection.execute("DROP TABLE IF EXISTS content")
                connection.executescript(_SCHEMA)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            failure = _DamagedError if _is_damage(error) else StorageError
            raise failure(f"{self.path} cannot be opened: {error}") from error
        return connection

    def _present(self) -> tuple[int, int] | None:
        """Return what tells the file at the path from another one; nobody can have an inode that is open anew."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _remove(self) -> None:
        # The file first: whoever has it open leaves files of those names alone when it is gone.
        for name in (self.path, *(self.path.with_name(f"{self.path.name}-{part}") for part in ("wal", "shm"))):
            name.unlink(missing_ok=True)

    def start_anew(self) -> None:
        """Forget everything, and have the other processes go over to the new file.

        Raises
        ------
        StorageError
            It cannot be opened.
        """
        with self._alone():
            if self._present() in (None, self._file):
                self._remove()
            connection = self._opened()
            self._connection.close()
            self._connection = connection
            self._file = self._present()
        self._lost()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def refresh(self) -> None:
        """Go over to the new file where another process has started one; what the old one says may be outdated.

        Raises
        ------
        StorageError
            It cannot be opened.
        """
        if self._present() != self._file:
            self.start_anew()

    def find(self, keys: Iterable[bytes]) -> Mapping[tuple[bytes, str], bytes]:
        """Return the digests of the objects that hold some contents, as far as they are known, by key and kind.

        Raises
        ------
        StorageError
            The index is damaged, and cannot be started anew.
        """
        found: dict[tuple[bytes, str], bytes] = {}
        asked = sorted(set(keys))
        try:
            for start in range(0, len(asked), _AT_ONCE):
                some = asked[start : start + _AT_ONCE]
                for key, kind, digest, checksum in self._connection.execute(_FIND.format(_marks(len(some))), some):
                    if not isinstance(digest, bytes) or checksum != _checksum(key, kind, digest):
                        self.start_anew()
                        return {}
                    found[key, kind] = digest
        except sqlite3.Error as error:
            if _is_damage(error):
                self.start_anew()
            return {}
        return found

    def add(self, rows: Iterable[tuple[bytes, str, bytes]]) -> None:
        """Remember objects that are on the disk.

        Parameters
        ----------
        rows
            Key, kind and digest of each; iterated over again where the index is damaged.

        Raises
        ------
        StorageError
            The file cannot be written.
        """

        def add(connection: sqlite3.Connection) -> None:
            connection.executemany(_ADD, ((*row, _checksum(*row)) for row in rows))

        self._change(add)

    def forget(self, digests: Iterable[bytes]) -> None:
        """Drop objects that are to be deleted; when this returns, no power failure brings them back.

        Raises
        ------
        StorageError
            The file cannot be written.
        """
        gone = [(digest,) for digest in digests]

        def forget(connection: sqlite3.Connection) -> None:
            connection.execute("CREATE TEMPORARY TABLE gone (object BLOB PRIMARY KEY) WITHOUT ROWID")
            connection.executemany("INSERT OR IGNORE INTO gone VALUES (?)", gone)
            connection.execute("DELETE FROM content WHERE object IN (SELECT object FROM gone)")
            connection.execute("DROP TABLE gone")

        self._change(forget)
        try:
            # Whatever is written later, without waiting for the disk, can take none of this back.
            self._connection.execute("PRAGMA synchronous = FULL")
            busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._connection.execute("PRAGMA synchronous = OFF")
        except sqlite3.Error as error:
            raise StorageError(f"{self.path} cannot be written: {error}") from error
        if busy:
            raise StorageError(f"{self.path} cannot be brought to the disk: others were reading it all the time")

    def collections(self) -> str:
        """Return which collections are known to have been taken account of, as `retain` was told; else an empty text.

        Raises
        ------
        StorageError
            The file cannot be read.
        """
        self.refresh()
        try:
            row = self._connection.execute("SELECT collections FROM agrees").fetchone()
        except sqlite3.Error as error:
            if not _is_damage(error):
                raise StorageError(f"{self.path} cannot be read: {error}") from error
            self.start_anew()
            row = None
        return "" if row is None else str(row[0])

    def retain(self, digests: Iterable[bytes], *, collections: str) -> None:
        """Drop all but some objects.

        Parameters
        ----------
        digests
            What is there; iterated over again where the index is damaged.
        collections
            What the storage said of collections before it was asked what is there.

        Raises
        ------
        StorageError
            The file cannot be written, or what iterates over the digests failed: then nothing has been dropped.
        """

        def retain(connection: sqlite3.Connection) -> None:
            connection.execute("CREATE TEMPORARY TABLE kept (object BLOB PRIMARY KEY) WITHOUT ROWID")
            connection.executemany("INSERT OR IGNORE INTO kept VALUES (?)", ((digest,) for digest in digests))
            connection.execute("DELETE FROM content WHERE object NOT IN (SELECT object FROM kept)")
            connection.execute("DROP TABLE kept")
            connection.execute("INSERT OR REPLACE INTO agrees VALUES (1, ?)", (collections,))

        self._change(retain)

    def _change(self, work: Callable[[sqlite3.Connection], None]) -> None:
        self.refresh()
        try:
            try:
                self._transact(work)
            except sqlite3.Error as error:
                if not _is_damage(error):
                    raise
                self.start_anew()
                self._transact(work)
        except sqlite3.Error as error:
            raise StorageError(f"{self.path} cannot be written: {error}") from error

    def _transact(self, work: Callable[[sqlite3.Connection], None]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            work(self._connection)
        except BaseException:
            # A damaged file may have ended it already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def __len__(self) -> int:
        (count,) = self._connection.execute("SELECT count(*) FROM content").fetchone()
        return int(count)
