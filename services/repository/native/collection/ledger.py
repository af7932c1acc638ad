"""What a collection knows of objects: which are reached, and which are not. On disk, so that memory is bounded."""

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Self

__all__ = ["Doomed", "Ledger", "Totals"]

_SCHEMA: Final = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA cache_size = -32768;
CREATE TABLE reached (name BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE doomed (name BLOB PRIMARY KEY, path TEXT, size INTEGER, rank INTEGER, digest BLOB) WITHOUT ROWID;
"""


class Doomed(NamedTuple):
    """Something that is to be deleted."""

    name: bytes
    """Packed; for what is no object, its path."""
    path: str
    size: int
    """In bytes."""
    rank: int
    """Lower ones are deleted first."""
    digest: bytes | None
    """The object's hash; None for what is no object."""


class Totals(NamedTuple):
    """How much is to be deleted."""

    objects: int
    size: int
    """In bytes."""


class Ledger:
    """A context manager that holds the ledger of one collection.

    Parameters
    ----------
    directory
        Where its file is for the time.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "ledger"

    def __enter__(self) -> Self:
        self._connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            self._connection.executescript(_SCHEMA)
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(self, *_failure: object) -> None:
        self._connection.close()

    def reach(self, names: Iterable[bytes]) -> None:
        """Write down that objects are reached."""
        self._write("INSERT OR IGNORE INTO reached VALUES (?)", ((name,) for name in names))

    def reaches(self, name: bytes) -> bool:
        """Tell whether an object is reached."""
        return self._connection.execute("SELECT 1 FROM reached WHERE name = ?", (name,)).fetchone() is not None

    def reached(self) -> Iterator[bytes]:
        """Iterate over what is reached."""
        for (name,) in self._connection.execute("SELECT name FROM reached"):
            yield name

    def doom(self, things: Iterable[Doomed]) -> None:
        """Write down what is to be deleted unless it is reached."""
        self._write("INSERT OR REPLACE INTO doomed VALUES (?, ?, ?, ?, ?)", things)
        self.spare_reached()

    def spare_reached(self) -> None:
        """Take from what is to be deleted whatever is reached by now."""
        self._connection.execute("DELETE FROM doomed WHERE name IN (SELECT name FROM reached)")

    def promote(self, names: Iterable[bytes]) -> None:
        """Have some of it deleted first."""
        self._write("UPDATE doomed SET rank = 0 WHERE name = ?", ((name,) for name in names))

    def take(self, most: int) -> list[Doomed]:
        """Return what is to be deleted next, all of one rank."""
        rows = self._connection.execute(
            "SELECT name, path, size, rank, digest FROM doomed WHERE rank = (SELECT min(rank) FROM doomed) LIMIT ?",
            (most,),
        )
        return [Doomed(*row) for row in rows]

    def drop(self, things: Iterable[Doomed]) -> None:
        """Write down that it has been deleted."""
        self._write("DELETE FROM doomed WHERE name = ?", ((thing.name,) for thing in things))

    def totals(self) -> Totals:
        """Return how much is to be deleted."""
        return Totals(*self._connection.execute("SELECT count(*), coalesce(sum(size), 0) FROM doomed").fetchone())

    def _write(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        self._connection.execute("BEGIN")
        self._connection.executemany(statement, rows)
        self._connection.execute("COMMIT")
