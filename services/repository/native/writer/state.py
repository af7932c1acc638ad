"""What the publisher keeps of its own revisions beside the repository.

A repository that is restored from a backup has an older manifest than clients have seen, and they take no revision that
is not newer than that. So the highest number and time are kept here, where the backup does not reach; and which
revision brought which layer, which the repository does not say.
"""

import os
import secrets
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Self

import structlog

from services.common.digest import Digest
from services.common.durable import sync_directory
from services.repository.native.errors import StorageError

__all__ = ["DamagedStateError", "Highest", "LocalState"]

_log = structlog.get_logger(__name__)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS highest
(one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL, published INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS layers (digest TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
"""
_RAISE: Final = """
INSERT INTO highest VALUES (1, :revision, :published)
ON CONFLICT (one) DO UPDATE SET revision = max(revision, :revision), published = max(published, :published)
"""
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_REMEDY: Final = "start the publisher of this state anew, which puts it aside and goes on above the head"


class DamagedStateError(StorageError):
    """The file is no database, or only a part of one."""


class Highest(NamedTuple):
    """The highest number and time of a revision; both are 0 where none is known."""

    revision: int
    published: int


class LocalState:
    """One SQLite file; blocking, one thread at a time.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    DamagedStateError
        It is damaged.
    StorageError
        It cannot be opened, for another reason.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if os.path.isdir(path):
            raise DamagedStateError(f"{path} is a directory: {_REMEDY}")
        try:
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.executescript(_SCHEMA)
                self._check()
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.Error as error:
            raise self._failed(error) from error

    @classmethod
    def open_or_replace(cls, path: Path) -> Self:
        """Open the file as its one publisher, which has the lock of the state; a damaged one is put aside.

        What it said can be found elsewhere: the head, and by the journal which revisions clients may have seen.

        Raises
        ------
        StorageError
            It cannot be opened, for another reason than damage, or not be put aside.
        """
        try:
            return cls(path)
        except DamagedStateError as error:
            aside = path.with_name(f"{path.name}.damaged-{secrets.token_hex(4)}")
            _log.error(
                "the publisher's record of its own revisions is damaged and put aside: the next revision is above the "
                "head and above what the journal knows",
                reason=str(error),
                aside=str(aside),
            )
            try:
                # The log first: without its database it says nothing, and a new one must not meet it.
                for part in ("-wal", "-shm", ""):
                    with suppress(FileNotFoundError):
                        path.with_name(path.name + part).rename(aside.with_name(aside.name + part))
                sync_directory(path.parent)
            except OSError as failure:
                raise StorageError(f"{path} is damaged and cannot be put aside: {failure.strerror}") from failure
            return cls(path)

    def _check(self) -> None:
        """Find damage that opening does not meet; the file has a row for each layer, and takes milliseconds."""
        found = [text for (text,) in self._connection.execute("PRAGMA quick_check(1)")]
        if found != ["ok"]:
            raise DamagedStateError(f"{self._path} is damaged: {found[0]}: {_REMEDY}")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def highest(self) -> Highest:
        """Return the highest number and time that have been noted."""
        try:
            row = self._connection.execute("SELECT revision, published FROM highest").fetchone()
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return Highest(*row) if row else Highest(0, 0)

    def note(self, highest: Highest, layers: Iterable[Digest] = ()) -> None:
        """Note a revision and the layers that it brought.

        Raises
        ------
        StorageError
            The file cannot be written.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.execute(_RAISE, highest._asdict())
                self._connection.executemany(
                    "INSERT OR REPLACE INTO layers VALUES (?, ?)", [(digest, highest.revision) for digest in layers]
                )
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def revision_of(self, digest: Digest) -> int | None:
        """Return the revision that brought a layer, where it is known."""
        try:
            row = self._connection.execute("SELECT revision FROM layers WHERE digest = ?", (digest,)).fetchone()
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return None if row is None else int(row[0])

    def _failed(self, error: sqlite3.Error) -> StorageError:
        # The low byte is the kind of error; errors of Python's own have none.
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
            return DamagedStateError(f"{self._path} is damaged: {error}: {_REMEDY}")
        return StorageError(f"{self._path} cannot be used: {error}")
