"""What the publisher keeps of its own revisions beside the repository.

A repository that is restored from a backup has an older manifest than clients have seen, and they take no revision that
is not newer than that. So the highest number and time are kept here, where the backup does not reach; and which
revision brought which layer, which the repository does not say.
"""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from services.common.digest import Digest
from services.repository.native.errors import StorageError

__all__ = ["Highest", "LocalState"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS highest
(one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL, published INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS layers (digest TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
"""
_RAISE: Final = """
INSERT INTO highest VALUES (1, :revision, :published)
ON CONFLICT (one) DO UPDATE SET revision = max(revision, :revision), published = max(published, :published)
"""


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
    StorageError
        It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.executescript(_SCHEMA)
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.Error as error:
            raise self._failed(error) from error

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
        return StorageError(f"{self._path} cannot be used: {error}")
