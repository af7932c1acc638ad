"""Hints that have been taken and not been looked into yet, on the disk before their sender is answered.

A hint is in it once, however often it comes: the last time counts. It is given out in the order of these times, and
goes when whoever took it has done what follows from it, unless it has come again since. After a kill, everything that
was given out and not done is given out again.
"""

import asyncio
import itertools
import sqlite3
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from services.common.serial import SerialThread
from services.converter.hints.errors import HintJournalError, JournalFullError
from services.converter.hints.model import Event, Recorded
from services.converter.model import Hint

__all__ = ["HintJournal"]

_Result = TypeVar("_Result")

_SCHEMA: Final = """
BEGIN IMMEDIATE;
CREATE TABLE pending (
    registry   TEXT NOT NULL,
    repository TEXT NOT NULL,
    tag        TEXT NOT NULL,  -- empty for any
    sequence   INTEGER NOT NULL UNIQUE,
    taken_at   REAL NOT NULL,
    PRIMARY KEY (registry, repository, tag)
) STRICT, WITHOUT ROWID;
CREATE TABLE deliveries (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    endpoint   TEXT NOT NULL,
    identity   TEXT NOT NULL,
    UNIQUE (endpoint, identity)
) STRICT;
PRAGMA user_version = 1;
COMMIT;
"""
_VERSION: Final = 1

_REMEMBERED: Final = 100_000
"""Deliveries that are told when they come again; whoever repeats one does so soon."""

_PAGE: Final = 100
"""Hints that are read at once."""


class HintJournal:
    """The hints, in one SQLite file. Used as `async with`, from one event loop.

    Parameters
    ----------
    path
        The file; it and its directory are made where they do not exist.
    limit
        Most hints that may wait.
    """

    def __init__(self, path: Path, *, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._thread: SerialThread
        self._connection: sqlite3.Connection
        self._stack = ExitStack()
        self._sequences: itertools.count[int]
        self._waiting = 0
        self._page: deque[tuple[int, Hint]] = deque()
        self._cursor = 0
        self._refill = asyncio.Lock()
        self._fresh = asyncio.Event()
        self._given: dict[Hint, deque[int]] = defaultdict(deque)
        self._done: deque[int] = deque()
        self._forgotten: list[int] = []

    async def __aenter__(self) -> Self:
        """Open the file.

        Raises
        ------
        HintJournalError
            It is no journal of hints, was written by a newer version, or cannot be opened.
        """
        self._thread = SerialThread("hints")
        try:
            await self._thread.run(self._open)
        except BaseException:
            await asyncio.to_thread(self._end)
            raise
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Close it."""
        try:
            await self._thread.run(partial(self._guarded, self._forget))
        finally:
            await asyncio.to_thread(self._end)

    @property
    def pending(self) -> int:
        """How many hints wait, those given out among them."""
        return self._waiting

    async def record(self, endpoint: str, events: Sequence[Event]) -> Recorded:
        """Record events: all of them are on the disk when this returns, or none is recorded.

        Parameters
        ----------
        endpoint
            Name of the endpoint that they came by.
        events
            The events; one whose identity the endpoint has delivered before changes nothing.

        Raises
        ------
        JournalFullError
            There would be too many hints.
        HintJournalError
            The file cannot be written.
        """
        recorded = await self._thread.run(partial(self._guarded, partial(self._record, endpoint, events)))
        if recorded.taken:
            self._fresh.set()
        return recorded

    async def next(self) -> Hint:
        """Give out the hint that has waited longest; wait until there is one.

        Raises
        ------
        HintJournalError
            The file cannot be read.
        """
        async with self._refill:
            while not self._page:
                self._fresh.clear()
                page = await self._thread.run(partial(self._guarded, partial(self._read, self._cursor)))
                if not page:
                    await self._fresh.wait()
                    continue
                self._page.extend(page)
                self._cursor = page[-1][0]
            sequence, hint = self._page.popleft()
            self._given[hint].append(sequence)
            return hint

    async def done(self, hint: Hint) -> None:
        """Say that what follows from a hint that was given out has been done.

        It is forgotten on the disk when something else is written or read: one that is given out again after a kill
        costs a question to its registry.
        """
        given = self._given[hint]
        self._done.append(given.popleft())
        if not given:
            del self._given[hint]
        if len(self._done) >= _PAGE:
            await self._thread.run(partial(self._guarded, self._forget))

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._connection = self._stack.enter_context(
                closing(sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=30))
            )
            for pragma in ("journal_mode = WAL", "synchronous = FULL"):
                self._connection.execute(f"PRAGMA {pragma}")
            ((version,),) = self._connection.execute("PRAGMA user_version")
            if version > _VERSION:
                raise HintJournalError(
                    f"the journal of hints {self._path} has version {version}, this converter reads up to {_VERSION}: "
                    "use the converter that wrote it, or move the file away (polling finds what its hints were about)"
                )
            if version < _VERSION:
                self._connection.executescript(_SCHEMA)
            ((last, self._waiting),) = self._connection.execute(
                "SELECT coalesce(max(sequence), 0), count(*) FROM pending"
            )
        except (sqlite3.Error, OSError) as error:
            raise HintJournalError(
                f"the journal of hints {self._path} cannot be opened: {error}: "
                "move the file away if it is damaged (polling finds what its hints were about)"
            ) from error
        self._sequences = itertools.count(last + 1)
        self._thread.finish_by(self._commit)

    def _end(self) -> None:
        self._thread.close()
        self._stack.close()

    def _guarded(self, job: Callable[[], _Result]) -> _Result:
        """Do a job in the transaction of all jobs of this moment; one that fails leaves nothing behind."""
        try:
            if not self._connection.in_transaction:
                self._connection.execute("BEGIN IMMEDIATE")
            waiting = self._waiting
            self._connection.execute("SAVEPOINT job")
            try:
                return job()
            except BaseException:
                self._connection.execute("ROLLBACK TO job")
                self._waiting = waiting
                raise
            finally:
                self._connection.execute("RELEASE job")
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _commit(self) -> None:
        """Bring what the jobs of this moment have changed to the disk."""
        try:
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")
            self._forgotten.clear()
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._done.extend(self._forgotten)
            self._forgotten.clear()
            ((self._waiting,),) = self._connection.execute("SELECT count(*) FROM pending")
            raise self._failed(error) from error

    def _record(self, endpoint: str, events: Sequence[Event]) -> Recorded:
        taken = repeated = 0
        for event in events:
            if event.identity is not None and not self._is_new(endpoint, event.identity):
                repeated += 1
                continue
            taken += 1
            key = (event.hint.registry, event.hint.repository, event.hint.tag or "")
            moment = (next(self._sequences), time.time())
            known = self._connection.execute(
                "UPDATE pending SET sequence = ?, taken_at = ? WHERE (registry, repository, tag) = (?, ?, ?)",
                (*moment, *key),
            )
            if known.rowcount:
                continue
            if self._waiting >= self._limit:
                raise JournalFullError(f"{self._waiting} hints wait, as many as there may be: send this again later")
            self._connection.execute(
                "INSERT INTO pending (sequence, taken_at, registry, repository, tag) VALUES (?, ?, ?, ?, ?)",
                (*moment, *key),
            )
            self._waiting += 1
        return Recorded(taken, repeated)

    def _is_new(self, endpoint: str, identity: str) -> bool:
        """Remember a delivery; return whether it was not remembered."""
        inserted = self._connection.execute(
            "INSERT OR IGNORE INTO deliveries (endpoint, identity) VALUES (?, ?)", (endpoint, identity)
        )
        if not inserted.rowcount or inserted.lastrowid is None:
            return False
        self._connection.execute("DELETE FROM deliveries WHERE number <= ?", (inserted.lastrowid - _REMEMBERED,))
        return True

    def _read(self, after: int) -> list[tuple[int, Hint]]:
        self._forget()
        rows = self._connection.execute(
            "SELECT sequence, registry, repository, tag FROM pending WHERE sequence > ? ORDER BY sequence LIMIT ?",
            (after, _PAGE),
        )
        return [
            (sequence, Hint(registry=registry, repository=repository, tag=tag or None))
            for sequence, registry, repository, tag in rows
        ]

    def _forget(self) -> None:
        """Take those out that are done and have not come again since."""
        while self._done:
            sequence = self._done.popleft()
            self._forgotten.append(sequence)
            deleted = self._connection.execute("DELETE FROM pending WHERE sequence = ?", (sequence,))
            self._waiting -= deleted.rowcount

    def _failed(self, error: sqlite3.Error) -> HintJournalError:
        return HintJournalError(f"the journal of hints {self._path} failed: {error}")
