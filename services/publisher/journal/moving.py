"""Moves a journal from a file of SQLite into PostgreSQL, in one transaction.

Rows go one by one from the file into the server's COPY, so that memory does not depend on how many there are.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import Connection
from psycopg.sql import SQL, Composable, Identifier
from sqlalchemy import Table

from services.common.database.errors import first_line
from services.common.database.postgresql import plain
from services.publisher.errors import JournalError
from services.publisher.journal.occupancy import keep_away
from services.publisher.journal.tables import metadata, watch
from services.publisher.journal.version import VERSION

__all__ = ["move_rows"]

_Target = Connection[tuple[Any, ...]]

_MADE_WITH_A_ROW: Final = frozenset({watch.name})
"""Tables that have a row from the start."""


def move_rows(path: Path, parameters: Mapping[str, Any], *, journal: str, oldest: int) -> dict[str, int]:
    """Copy every row of a file into an empty journal: all of them, or none.

    Parameters
    ----------
    path
        A journal of this version, which nobody works with.
    parameters
        What connections to the database are made with; its journal has this version too.
    journal
        What that is, for errors.
    oldest
        The oldest version whose publishers may work with it.

    Returns
    -------
    dict[str, int]
        How many rows each table has.

    Raises
    ------
    JournalError
        The journal is not empty, a publisher works with it, or one of the two failed.
    """
    try:
        with closing(sqlite3.connect(path)) as source, psycopg.connect(**parameters) as target:
            for version in range(oldest, VERSION + 1):
                if target.execute(keep_away(version).encode()).fetchone() != (True,):
                    raise JournalError(f"a publisher works with {journal}: end it first")
            # Whoever does not know of these locks waits for the end of the transaction.
            for table in metadata.sorted_tables:
                target.execute(SQL("LOCK TABLE {}").format(_named(table)))
            _refuse_filled(target, journal)
            return {table.name: _copy(source, target, table, journal) for table in metadata.sorted_tables}
    except (sqlite3.Error, psycopg.Error) as error:
        raise JournalError(f"{path} cannot be moved into {journal}: {first_line(error)}") from error


def _refuse_filled(target: _Target, journal: str) -> None:
    for table in metadata.sorted_tables:
        filled = target.execute(SQL("SELECT FROM {} LIMIT 1").format(_named(table))).rowcount
        if filled and table.name not in _MADE_WITH_A_ROW:
            raise JournalError(f"{journal} is not empty, it has {table.name}: give a new database")


def _copy(source: sqlite3.Connection, target: _Target, table: Table, journal: str) -> int:
    columns = [column.name for column in table.columns]
    quoted = ", ".join(f'"{name}"' for name in columns)
    target.execute(SQL("DELETE FROM {}").format(_named(table)))
    statement = SQL("COPY {} ({}) FROM STDIN").format(_named(table), SQL(", ").join(map(Identifier, columns)))
    written = 0
    with target.cursor() as cursor, cursor.copy(statement) as copy:
        for row in source.execute(f'SELECT {quoted} FROM "{table.name}"'):  # noqa: S608 - names of the journal's own
            copy.write_row([plain(value) for value in row])
            written += 1
    found = target.execute(SQL("SELECT count(*) FROM {}").format(_named(table))).fetchone()
    if found != (written,):
        raise JournalError(f"{journal} has {found} rows in {table.name} of {written}: nothing has been moved")
    # The server's statistics would know of no rows for a while.
    target.execute(SQL("ANALYZE {}").format(_named(table)))
    return written


def _named(table: Table) -> Composable:
    return Identifier(table.name)
