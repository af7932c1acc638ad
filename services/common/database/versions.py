"""The versions of a database's tables: numbers, which Alembic knows the modules of.

A file of SQLite says its version in `user_version` as well, where programs before Alembic look for it. A version may
say the oldest one whose programs can go on with its tables: `oldest` of its module, which is written beside the
version where the program's `env.py` has `record_oldest` called.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import Script
from sqlalchemy import Connection, column, inspect, select, table

__all__ = ["Tables", "oldest_of", "read_tables", "record_oldest", "upgrade"]

_TABLE: Final = "alembic_version"
_OLDEST: Final = "oldest"
"""A column of Alembic's table, which it leaves alone."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What a database says of its tables."""

    version: int
    """0 where there are none."""
    oldest: int
    """The oldest version whose programs may work with them."""

    def usable(self, version: int) -> bool:
        """Whether a program of some version may work with them as they are."""
        return self.oldest <= version <= self.version


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


def upgrade(connection: Connection, *, migrations: Path, version: int) -> None:
    """Bring tables to a version, while nobody else does.

    Parameters
    ----------
    migrations
        The directory of `env.py` and the versions' modules.
    """
    config = Config()
    config.set_main_option("script_location", str(migrations))
    config.attributes["connection"] = connection
    command.upgrade(config, str(version))
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA user_version = {version}")


def oldest_of(script: Script) -> int:
    """Return the oldest version whose programs may work with the tables that a module makes."""
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
