"""The version of the tables, how those of an earlier one become it, and which publishers may work with them.

Versions are numbers. The ninth is the first that Alembic knows, and the first on PostgreSQL. A file of SQLite says its
version in `user_version` as well, where publishers before the ninth look for it.

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

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, column, inspect, select, table

from services.publisher.errors import JournalError
from services.publisher.journal.version import VERSION

__all__ = ["Migration", "Tables", "migrate", "oldest_of", "read_tables", "record_oldest"]

_MIGRATIONS: Final = Path(__file__).with_name("migrations")
_TABLE: Final = "alembic_version"
_OLDEST: Final = "oldest"
"""A column of Alembic's table, which it leaves alone."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What a database says of its tables."""

    version: int
    """0 where there are none."""
    oldest: int
    """The oldest version whose publishers may work with them."""

    @property
    def usable(self) -> bool:
        """Whether a publisher of this version may work with them as they are."""
        return self.oldest <= VERSION <= self.version

    def refuse_newer(self, journal: str) -> None:
        """Refuse tables that this publisher can neither work with nor bring to its version.

        Parameters
        ----------
        journal
            What it is, for errors.

        Raises
        ------
        JournalError
            They are such.
        """
        if self.version > VERSION and not self.usable:
            raise JournalError(
                f"{journal} has version {self.version}, which publishers from version {self.oldest} on may work with, "
                f"and this one has version {VERSION}: use a newer publisher, or another journal (a sweep of the bucket "
                "fills a new one)"
            )


@dataclass(frozen=True, slots=True)
class Migration:
    """What has been done about a journal's version."""

    found: int
    """The version that it had; 0 where it had no tables."""
    now: int


def read_tables(connection: Connection) -> Tables:
    """Read what a database says of its tables."""
    columns = _columns(connection)
    # A start that was killed may have left Alembic's table empty.
    asked = select(table(_TABLE, *map(column, columns)))
    row = connection.execute(asked).mappings().first() if columns else None
    if row is None:
        sqlite = connection.dialect.name == "sqlite"
        former: int = connection.exec_driver_sql("PRAGMA user_version").scalar_one() if sqlite else 0
        return Tables(version=former, oldest=former)
    version = int(row["version_num"])
    oldest: int | None = row.get(_OLDEST)
    return Tables(version=version, oldest=version if oldest is None else oldest)


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
    found.refuse_newer(journal)
    if found.usable:
        return Migration(found=found.version, now=found.version)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    newest = ScriptDirectory.from_config(config).get_revision(str(VERSION))
    keep_away(range(found.oldest, oldest_of(newest)))
    if apart:
        connection.rollback()  # what has been read is no part of any version's transaction
    command.upgrade(config, str(VERSION))
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
    return Migration(found=found.version, now=VERSION)


def oldest_of(script: Script) -> int:
    """Return the oldest version whose publishers may work with the tables that a module makes."""
    oldest: int = getattr(script.module, _OLDEST, int(script.revision))
    return oldest


def record_oldest(
    ctx: MigrationContext,
    step: MigrationInfo,
    heads: object,  # noqa: ARG001 - what Alembic gives
    run_args: object,  # noqa: ARG001 - what Alembic gives
) -> None:
    """Write down who may work with the tables, in the transaction of the version that has just been made."""
    connection, script = ctx.connection, step.up_revision
    assert connection is not None  # noqa: S101 - there is none where Alembic only writes what it would do
    assert isinstance(script, Script)  # noqa: S101 - there is none where it goes down
    if _OLDEST not in _columns(connection):
        connection.exec_driver_sql(f"ALTER TABLE {_TABLE} ADD COLUMN {_OLDEST} BIGINT")
    connection.exec_driver_sql(f"UPDATE {_TABLE} SET {_OLDEST} = {oldest_of(script)}")  # noqa: S608 - constants


def _columns(connection: Connection) -> set[str]:
    """Return the columns of Alembic's table; none where it is not there."""
    found = inspect(connection)
    return {each["name"] for each in found.get_columns(_TABLE)} if found.has_table(_TABLE) else set()
