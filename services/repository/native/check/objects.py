"""Reads every object that files consist of, once, however many files share it."""

import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple, Self

from services.repository.native.check.parallel import Workers
from services.repository.native.check.problem import Problem, mending
from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError
from services.repository.native.reader.objects import read_sized_object
from services.repository.native.reader.source import Source
from services.repository.native.records import Compression, ContentHash, HashAlgorithm, ObjectKind

__all__ = ["ObjectLedger", "WantedObject", "check_objects"]

_BATCH: Final = 100
"""Objects that one thread reads at a time: most are small."""
_ALGORITHMS: Final = tuple(HashAlgorithm)


class WantedObject(NamedTuple):
    """An object that a file consists of, wholly or in part."""

    name: ContentHash
    kind: ObjectKind
    size: int
    """Of its content, in bytes."""
    compression: Compression
    place: str
    """A path that has it, printable."""


class ObjectLedger:
    """The objects that a repository must have, on disk, as there may be millions. A context manager for any thread."""

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="check-")
        self._lock = threading.Lock()
        # What is lost with the process is of no use to another one.
        self._connection = sqlite3.connect(
            Path(self._directory.name) / "objects", check_same_thread=False, isolation_level=None
        )
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute(
            "CREATE TABLE wanted"
            " (digest BLOB, algorithm INTEGER, kind TEXT, compression INTEGER, size INTEGER, place TEXT,"
            " PRIMARY KEY (digest, algorithm, kind, compression, size)) WITHOUT ROWID"
        )
        return self

    def __exit__(self, *_failure: object) -> None:
        self._connection.close()
        self._directory.cleanup()

    def add(self, objects: Iterable[WantedObject]) -> None:
        """Note objects; of one that is there already the first path by name is kept, before others one of a layer."""
        rows = [
            (
                wanted.name.digest,
                wanted.name.algorithm.number,
                wanted.kind,
                wanted.compression,
                wanted.size,
                wanted.place,
            )
            for wanted in objects
        ]
        with self._lock:
            self._connection.execute("BEGIN")
            self._connection.executemany(
                "INSERT INTO wanted VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET place = excluded.place"
                " WHERE (excluded.place NOT GLOB '/.layers/*', excluded.place) < (place NOT GLOB '/.layers/*', place)",
                rows,
            )
            self._connection.execute("COMMIT")

    def __len__(self) -> int:
        (number,) = self._connection.execute("SELECT count(*) FROM wanted").fetchone()
        return int(number)

    def batches(self) -> Iterator[list[WantedObject]]:
        """Iterate over all objects, some at a time."""
        with closing(self._connection.cursor()) as cursor:
            cursor.execute("SELECT digest, algorithm, kind, compression, size, place FROM wanted")
            while rows := cursor.fetchmany(_BATCH):
                yield [
                    WantedObject(
                        ContentHash(digest, _ALGORITHMS[algorithm]),
                        ObjectKind(kind),
                        size,
                        Compression(compression),
                        place,
                    )
                    for digest, algorithm, kind, compression, size, place in rows
                ]


def check_objects(source: Source, ledger: ObjectLedger, workers: Workers, *, content: bool) -> Iterator[Problem]:
    """Iterate over what is wrong with the objects.

    Parameters
    ----------
    source
        Where the repository is.
    ledger
        The objects.
    workers
        Read them.
    content
        Whether to read them whole; otherwise they need only be there.

    Raises
    ------
    StorageError
        The storage failed.
    """

    def check(batch: list[WantedObject]) -> list[Problem]:
        return [problem for wanted in batch if (problem := _check(source, wanted, content=content)) is not None]

    for problems in workers.map(check, ledger.batches()):
        yield from problems


def _check(source: Source, wanted: WantedObject, *, content: bool) -> Problem | None:
    path = wanted.name.path(wanted.kind)
    missing = Problem(wanted.place, f"its object {path} is missing", mending(wanted.place))
    try:
        if content:
            for _ in read_sized_object(
                source, wanted.name, wanted.kind, size=wanted.size, compression=wanted.compression
            ):
                pass
        elif source.size(path) is None:
            return missing
    except ObjectMissingError:
        return missing
    except BrokenRepositoryError as error:
        return Problem(wanted.place, f"its object {error}", mending(wanted.place))
    return None
