"""The reference log: every root catalog, certificate, tag database and meta information that was ever published.

Garbage collectors, this one and the stock one, start from it: what it does not name they never delete.
"""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from services.common.errors import InvalidValueError
from services.common.repository_name import RepositoryName
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.records import (
    REFLOG,
    REFLOG_SCHEMA,
    REFLOG_SCHEMA_REVISION,
    REFLOG_SCHEMA_VERSION,
    ContentHash,
    RefKind,
)
from services.repository.native.writer.small_databases import create_database, open_database

__all__ = ["Reference", "ReferenceLog"]

_SCHEMA: Final = {"schema": REFLOG_SCHEMA_VERSION, "schema_revision": REFLOG_SCHEMA_REVISION}


@dataclass(frozen=True, slots=True)
class Reference:
    """One entry."""

    name: ContentHash
    kind: RefKind
    timestamp: int
    """When it was published, in Unix seconds."""


class ReferenceLog:
    """Changes and reads reference logs, which are given and returned as the bytes of their files."""

    def add(
        self,
        current: bytes | None,
        references: Sequence[tuple[ContentHash, RefKind]],
        *,
        name: RepositoryName,
        timestamp: int,
    ) -> bytes:
        """Return the log with more references; one that is there gets the new time.

        Parameters
        ----------
        current
            The log so far; None where there is none.
        references
            What is published.
        name
            The repository.
        timestamp
            When, in Unix seconds.

        Raises
        ------
        BrokenRepositoryError
            The log so far is damaged, or of another repository.
        """
        rows = [(str(reference), kind.value, timestamp) for reference, kind in references]
        with _open(current, name) as connection:
            connection.executemany("INSERT OR REPLACE INTO refs VALUES (?, ?, ?)", rows)
            connection.commit()
            return bytes(connection.serialize())

    def remove(self, current: bytes, names: Collection[ContentHash], *, name: RepositoryName) -> bytes:
        """Return the log without some references; errors as `add`."""
        with _open(current, name) as connection:
            connection.executemany("DELETE FROM refs WHERE hash = ?", [(str(gone),) for gone in names])
            connection.commit()
            connection.execute("VACUUM")
            return bytes(connection.serialize())

    def read(self, current: bytes, *, name: RepositoryName) -> list[Reference]:
        """Return what the log holds; errors as `add`."""
        with _open(current, name) as connection:
            try:
                return [
                    Reference(ContentHash.parse(text), RefKind(kind), timestamp)
                    for text, kind, timestamp in connection.execute("SELECT hash, type, timestamp FROM refs")
                ]
            except (InvalidValueError, ValueError) as error:
                raise BrokenRepositoryError(f"{REFLOG} is damaged: {error}") from error


@contextmanager
def _open(current: bytes | None, name: RepositoryName) -> Iterator[sqlite3.Connection]:
    properties = {**_SCHEMA, "fqrn": name}
    opened = (
        create_database(REFLOG_SCHEMA, properties) if current is None else open_database(current, REFLOG, properties)
    )
    with opened as connection:
        yield connection
