"""What is known of the snapshots: one SQLite database, one transaction for an operation.

containerd believes what it is told, and a snapshot that is lost is missed for ever. So nothing is told before `sync`
has brought it to the disk: once for all transactions before it, since SQLite's log is one file, of which counts what
comes before the first damage. The database is used by one thread at a time.
"""

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from services.common.descriptor import LayerUrl
from services.common.durable import sync_directory
from services.snapshotter.errors import (
    BadRequestError,
    DiskFullError,
    ExistsError,
    NotFoundError,
    PreconditionError,
    StateError,
)
from services.snapshotter.store.model import Kind, Snapshot, Usage
from services.snapshotter.store.tables import (
    CHAIN,
    FROM_FIRST,
    SCHEMA,
    SELECT,
    VERSION,
    encode_labels,
    kept_labels,
    snapshot_of,
)

__all__ = ["Records"]

_LOG_SIZE: Final = 1000 * (4096 + 24) + 32
"""Bytes of SQLite's log when it goes to the database: a header, and a thousand pages with one each."""


class Records:
    """The database. All methods block.

    Parameters
    ----------
    path
        Its file; made where it is missing.

    Raises
    ------
    StateError
        The file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        """Whether there is a transaction that may not be on the disk."""
        try:
            with ExitStack() as stack:
                self._connection = stack.enter_context(
                    closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30))
                )
                self._connection.row_factory = sqlite3.Row
                self._prepare()
                # SQLite makes it with the first look, and does not remove or replace it before the database is closed.
                self._log = os.open(f"{path}-wal", os.O_RDWR | os.O_CLOEXEC)
                stack.callback(os.close, self._log)
                _lengthen(self._log)
                sync_directory(path.parent)
                self._stack = stack.pop_all()
        except sqlite3.Error as error:
            raise StateError(
                f"{path} cannot be used: {error}: restore it, or remove the whole directory and all containers and "
                "images that containerd has from it"
            ) from error

    def _prepare(self) -> None:
        # NORMAL: no transaction waits for the disk, but the log is there before what it says goes anywhere else.
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version in (0, 1):
            changes = FROM_FIRST if version else SCHEMA
            self._connection.executescript(f"BEGIN;{changes}PRAGMA user_version = {VERSION};COMMIT;")
        elif version != VERSION:
            raise StateError(f"{self._path} is of version {version}, this program knows {VERSION}: upgrade it")

    def close(self) -> None:
        """Close the database."""
        self._stack.close()

    def sync(self) -> None:
        """Bring to the disk what has been changed.

        Raises
        ------
        OSError
            The disk has failed.
        """
        if self._changed:
            os.fdatasync(self._log)
            self._changed = False

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.execute("COMMIT")
            self._changed = True
        except BaseException as error:
            # Where the disk is full, SQLite may have rolled back already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise DiskFullError(f"the disk of {self._path} is full: remove containers or images") from error
            raise

    def find(self, name: str) -> Snapshot:
        """Return the snapshot of a key or name.

        Raises
        ------
        NotFoundError
            There is none.
        """
        row = self._connection.execute(SELECT + "WHERE s.name = ?", (name,)).fetchone()
        if row is None:
            raise NotFoundError(f"snapshot {name} does not exist")
        return snapshot_of(row)

    def get(self, number: int) -> Snapshot | None:
        """Return the snapshot of a number, if it is still there."""
        row = self._connection.execute(SELECT + "WHERE s.number = ?", (number,)).fetchone()
        return None if row is None else snapshot_of(row)

    def all(self) -> list[Snapshot]:
        """Return all snapshots, parents before those that stand on them."""
        return [snapshot_of(row) for row in self._connection.execute(SELECT + "ORDER BY s.number")]

    def chain(self, number: int) -> list[Snapshot]:
        """Return a snapshot and what it stands on, top first."""
        return [snapshot_of(row) for row in self._connection.execute(CHAIN, (number,))]

    def parent_for(self, key: str, parent: str) -> Snapshot | None:
        """Return what a new snapshot is to stand on; None where that is nothing.

        Raises
        ------
        ExistsError
            The key is taken.
        NotFoundError
            There is no such parent.
        BadRequestError
            The parent is not committed, or the key is empty.
        """
        if not key:
            raise BadRequestError("a snapshot has a key")
        self._refuse_taken(key)
        if not parent:
            return None
        found = self.find(parent)
        if found.kind is not Kind.COMMITTED:
            raise BadRequestError(f"parent {parent} is not a committed snapshot")
        return found

    def _refuse_taken(self, name: str) -> None:
        if self._connection.execute("SELECT 1 FROM snapshots WHERE name = ?", (name,)).fetchone():
            raise ExistsError(f"snapshot {name} exists already")

    def next_number(self) -> int:
        """Return a number that no snapshot has had."""
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'snapshots'").fetchone()
        return 1 if row is None else int(row["seq"]) + 1

    def create(self, number: int, key: str, below: Snapshot | None, kind: Kind, labels: Mapping[str, str]) -> Snapshot:
        """Add a snapshot that is not committed, and stands on what `parent_for` has returned in the same job."""
        now, kept = time.time_ns(), kept_labels(labels)
        on, parent = (None, "") if below is None else (below.number, below.name)
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO snapshots (number, name, parent, kind, created, updated, labels) VALUES (?,?,?,?,?,?,?)",
                (number, key, on, kind, now, now, encode_labels(kept)),
            )
        return Snapshot(number, key, on, parent, kind, now, now, kept, remote=None)

    def create_remote(
        self, number: int, key: str, parent: str, labels: Mapping[str, str], *, reference: str, url: LayerUrl
    ) -> Snapshot:
        """Add a committed snapshot that is a published layer, unless there is one for the same purpose.

        Parameters
        ----------
        reference
            Label by whose value and by the parent whoever asks for such a snapshot finds it.
        url
            The layer, also of one that was there before: this one has just been seen.

        Raises
        ------
        ExistsError, NotFoundError, BadRequestError
            As `parent_for`.
        """
        with self._transaction() as connection:
            below = self.parent_for(key, parent)
            under = below and below.number
            now = time.time_ns()
            siblings = connection.execute(SELECT + "WHERE s.parent IS ? AND s.remote IS NOT NULL", (under,))
            for snapshot in map(snapshot_of, siblings.fetchall()):
                if snapshot.labels.get(reference) == labels[reference]:
                    connection.execute("UPDATE snapshots SET remote = ? WHERE number = ?", (url, snapshot.number))
                    return self.find(snapshot.name)
            connection.execute(
                "INSERT INTO snapshots (number, name, parent, kind, created, updated, labels, remote)"
                " VALUES (?,?,?,?,?,?,?,?)",
                (number, key, under, Kind.COMMITTED, now, now, encode_labels(kept_labels(labels)), url),
            )
            return self.find(key)

    def commit(self, name: str, key: str, labels: Mapping[str, str]) -> Snapshot:
        """Make an active snapshot a committed one, under its name for good, and return it.

        Raises
        ------
        ExistsError
            The name is taken.
        NotFoundError
            There is no such snapshot.
        PreconditionError
            It is not active.
        BadRequestError
            The name is empty.
        """
        if not name:
            raise BadRequestError("a committed snapshot has a name")
        with self._transaction() as connection:
            self._refuse_taken(name)
            active = self.find(key)
            if active.kind is not Kind.ACTIVE:
                raise PreconditionError(f"snapshot {key} is not active")
            # Labels of the active one are not inherited.
            now, kept = time.time_ns(), kept_labels(labels)
            connection.execute(
                "UPDATE snapshots SET name = ?, kind = ?, created = ?, updated = ?, labels = ? WHERE number = ?",
                (name, Kind.COMMITTED, now, now, encode_labels(kept), active.number),
            )
        return replace(active, name=name, kind=Kind.COMMITTED, created=now, updated=now, labels=kept)

    def remove(self, key: str) -> Snapshot:
        """Forget a snapshot, and return what it was.

        Raises
        ------
        NotFoundError
            There is no such snapshot.
        PreconditionError
            Others stand on it.
        """
        with self._transaction() as connection:
            snapshot = self.find(key)
            if connection.execute("SELECT 1 FROM snapshots WHERE parent = ?", (snapshot.number,)).fetchone():
                raise PreconditionError(f"snapshot {key} cannot be removed: others stand on it")
            connection.execute("DELETE FROM snapshots WHERE number = ?", (snapshot.number,))
            return snapshot

    def update(self, name: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]) -> Snapshot:
        """Change the labels of a snapshot; an empty label is none.

        Raises
        ------
        NotFoundError
            There is no such snapshot.
        """
        with self._transaction() as connection:
            found, now = self.find(name), time.time_ns()
            kept = kept_labels(change(found.labels))
            connection.execute(
                "UPDATE snapshots SET labels = ?, updated = ? WHERE number = ?",
                (encode_labels(kept), now, found.number),
            )
        return replace(found, updated=now, labels=kept)

    def usage(self, number: int) -> Usage | None:
        """Return what has been noted of a committed snapshot's usage."""
        row = self._connection.execute("SELECT size, inodes FROM snapshots WHERE number = ?", (number,)).fetchone()
        return None if row is None or row["size"] is None else Usage(row["size"], row["inodes"])

    def note_usage(self, number: int, usage: Usage) -> None:
        """Note a committed snapshot's usage, which does not change any more."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE snapshots SET size = ?, inodes = ? WHERE number = ?", (usage.size, usage.inodes, number)
            )

    def published(self, number: int) -> str | None:
        """Return what has been noted of the layers that a committed snapshot is in a thin image."""
        row = self._connection.execute("SELECT published FROM snapshots WHERE number = ?", (number,)).fetchone()
        return None if row is None else row["published"]

    def note_published(self, number: int, layers: str) -> None:
        """Note the layers that a committed snapshot is in a thin image."""
        with self._transaction() as connection:
            connection.execute("UPDATE snapshots SET published = ? WHERE number = ?", (layers, number))

    def link(self, target: str) -> int:
        """Return the number of the link to a directory, the same for ever."""
        with self._transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO links (target) VALUES (?)", (target,))
            row = connection.execute("SELECT number FROM links WHERE target = ?", (target,)).fetchone()
            return int(row["number"])

    def links(self) -> dict[str, int]:
        """Return the numbers of all links, by the directories that they lead to."""
        return {row["target"]: row["number"] for row in self._connection.execute("SELECT * FROM links")}

    def forget_link(self, number: int) -> None:
        """Forget a link."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM links WHERE number = ?", (number,))


def _lengthen(log: int) -> None:
    """Give the log the size that it will have, and bring it to the disk.

    SQLite writes it from the beginning again and again, and reads it up to the first page that has no checksum; zeros
    have none. In a file that grows, each sync would have the file system write what it knows of the file as well, and
    with it all else that has happened to any directory.
    """
    size = os.fstat(log).st_size
    if size < _LOG_SIZE:
        try:
            os.pwrite(log, bytes(_LOG_SIZE - size), size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # It is slower then, and what makes room there needs no room.
    os.fsync(log)
