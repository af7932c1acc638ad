"""The version of the tables, how those of an earlier one become it, and which publishers may work with them.

The ninth is the first that Alembic knows, and the first on PostgreSQL.

Publishers of two versions work with one journal while a site is brought to the newer one. A version therefore says the
oldest one whose publishers may go on with its tables: `oldest` of its module, which is written beside the version, for
an older publisher to read. Three steps make a change that no publisher has to be stopped for:

- *expand*: a version adds what the next publisher needs: columns that may be null or have a default, tables, indexes.
  Its `oldest` is that of the version before;
- *migrate*: publishers of that version write both forms, and read either;
- *contract*: a later version takes the former form away, and names as `oldest` the first that does without it.

A version that says nothing is for its own publishers alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from services.common.database.versions import Tables, oldest_of, read_tables, upgrade
from services.publisher.errors import JournalError
from services.publisher.journal.version import VERSION

__all__ = ["Migration", "migrate", "refuse_newer"]

_MIGRATIONS: Final = Path(__file__).with_name("migrations")


@dataclass(frozen=True, slots=True)
class Migration:
    """What has been done about a journal's version."""

    found: int
    """The version that it had; 0 where it had no tables."""
    now: int


def refuse_newer(found: Tables, *, journal: str) -> None:
    """Refuse tables that this publisher can neither work with nor bring to its version.

    Parameters
    ----------
    journal
        What they are of, for errors.

    Raises
    ------
    JournalError
        They are such.
    """
    if found.version > VERSION and not found.usable(VERSION):
        raise JournalError(
            f"{journal} has version {found.version}, which publishers from version {found.oldest} on may work with, "
            f"and this one has version {VERSION}: use a newer publisher, or another journal (a sweep of the bucket "
            "fills a new one)"
        )


def migrate(
    connection: Connection, *, journal: str, keep_away: Callable[[range], None] = lambda _versions: None
) -> Migration:
    """Make the tables those of this publisher, while nobody else does.

    Parameters
    ----------
    connection
        In a transaction that all of it is part of, or in none: each version is a transaction of its own then.
    journal
        What it is, for errors.
    keep_away
        Told, before anything is changed, of which versions no publisher may work with the journal any more; raises
        JournalError where one does.

    Raises
    ------
    JournalError
        A newer publisher has written it, and this one may not work with that.
    """
    apart = not connection.in_transaction()
    found = read_tables(connection)
    refuse_newer(found, journal=journal)
    if found.usable(VERSION):
        return Migration(found=found.version, now=found.version)
    newest = ScriptDirectory(str(_MIGRATIONS)).get_revision(str(VERSION))
    keep_away(range(found.oldest, oldest_of(newest)))
    if apart:
        connection.rollback()  # what has been read is no part of any version's transaction
    upgrade(connection, migrations=_MIGRATIONS, version=VERSION)
    return Migration(found=found.version, now=VERSION)
