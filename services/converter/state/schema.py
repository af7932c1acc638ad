"""The version of the tables, and how those of an earlier one become it.

Versions are numbers. The third is the first that Alembic knows, and the first on PostgreSQL. A file of SQLite says its
version in `user_version` as well, where converters before the third look for it.
"""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from services.converter.errors import StateError
from services.converter.state.version import VERSION

__all__ = ["migrate"]

_MIGRATIONS: Final = Path(__file__).with_name("migrations")


def migrate(connection: Connection, *, state: str) -> None:
    """Make the tables those of this converter, in a transaction in which nobody else does.

    Parameters
    ----------
    state
        What it is, for errors.

    Raises
    ------
    StateError
        A newer converter has written it.
    """
    found = MigrationContext.configure(connection).get_current_revision()
    sqlite = connection.dialect.name == "sqlite"
    if found is None and sqlite:
        found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if found is not None and int(found) > VERSION:
        raise StateError(
            f"{state} has version {found}, this converter reads up to {VERSION}: use the converter that wrote it, or "
            "another state (everything is looked for anew then, and what is to be removed is counted anew)"
        )
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, str(VERSION))
    if sqlite:
        connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
