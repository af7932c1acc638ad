"""Brings a journal to this publisher's version, one process at a time.

A file of SQLite becomes it in one transaction. In PostgreSQL each version is a transaction of its own, and publishers
that may work with both go on meanwhile. It can be killed at any point and repeated.
"""

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from services.common.database.errors import first_line
from services.common.database.postgresql import blocking_engine
from services.common.database.sqlite_file import changing
from services.common.database.versions import Tables, read_tables
from services.publisher.errors import JournalError
from services.publisher.journal.occupancy import keep_away
from services.publisher.journal.schema import Migration, migrate

__all__ = ["read_postgresql", "read_sqlite", "upgrade_postgresql", "upgrade_sqlite"]

_log = structlog.get_logger(__name__)

_TURN: Final = 0x7468696E6D696772
"""What keeps a second one out: "thinmigr", in ASCII."""
_LOOK: Final = 0.2
"""Seconds between two looks at whether the other one has ended. Waiting in the database would be a transaction, which
an index that the other one makes beside running publishers would wait for."""
_PATIENCE: Final = "5s"
"""For which a change of a table waits for those that use it, as a copy of the database that is being made does:
everybody else waits behind it meanwhile."""


def upgrade_sqlite(path: Path, *, journal: str) -> Migration:
    """Bring a file to this version.

    Parameters
    ----------
    path
        It is made where it does not exist.
    journal
        What it is, for errors.

    Raises
    ------
    JournalError
        A newer publisher has written it, it is no journal, or it cannot be changed.
    """
    with _sqlite(path, journal) as connection:
        return migrate(connection, journal=journal)


def read_sqlite(path: Path, *, journal: str) -> Tables:
    """Read what a file says of its tables, without making it; otherwise as `upgrade_sqlite`."""
    if not path.exists():
        return Tables(version=0, oldest=0)
    with _sqlite(path, journal) as connection:
        return read_tables(connection)


def upgrade_postgresql(parameters: Mapping[str, Any], *, journal: str) -> Migration:
    """Bring a database to this version; blocks while another one does.

    Parameters
    ----------
    parameters
        What connections are made with.
    journal
        What it is, for errors.

    Raises
    ------
    JournalError
        A newer publisher has written it, one that is too old for this version works with it, or it cannot be changed.
    """
    with _postgresql(parameters, journal) as connection:
        _wait_for_turn(connection, journal)

        def alone(versions: range) -> None:
            for version in versions:
                if not connection.exec_driver_sql(keep_away(version)).scalar_one():
                    raise JournalError(
                        f"{journal} is not brought to a new version, since publishers of version {version} are "
                        "connected, which could not work with that: end them first"
                    )

        return migrate(connection, journal=journal, keep_away=alone)


def read_postgresql(parameters: Mapping[str, Any], *, journal: str) -> Tables:
    """Read what a database says of its tables; otherwise as `upgrade_postgresql`."""
    with _postgresql(parameters, journal) as connection:
        return read_tables(connection)


@contextmanager
def _sqlite(path: Path, journal: str) -> Iterator[Connection]:
    """Connect to a file, for one transaction."""
    with _failing(journal), changing(path) as connection:
        yield connection


@contextmanager
def _postgresql(parameters: Mapping[str, Any], journal: str) -> Iterator[Connection]:
    """Connect to a database; the end of the connection gives its locks back."""
    with _failing(journal), blocking_engine(parameters).connect() as connection:
        connection.exec_driver_sql(f"SET lock_timeout = '{_PATIENCE}'")
        connection.commit()
        yield connection


@contextmanager
def _failing(journal: str) -> Iterator[None]:
    try:
        yield
    except (psycopg.Error, sqlite3.Error, DBAPIError) as error:
        if isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.errors.LockNotAvailable):
            raise JournalError(
                f"{journal} was not brought to this version, as its tables are in use, for a back-up maybe: repeat this"
            ) from error
        raise JournalError(f"{journal} cannot be opened: {first_line(error)}") from error


def _wait_for_turn(connection: Connection, journal: str) -> None:
    waited = False
    while not connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({_TURN})").scalar_one():
        if not waited:
            waited = True
            _log.info("another process brings the journal to a new version, waiting for its end", journal=journal)
        connection.commit()
        time.sleep(_LOOK)
    connection.commit()
