"""The version of the tables, and how those of an earlier one become it.

Versions are numbers. The ninth is the first that Alembic knows, and the first on PostgreSQL. A file of SQLite says its
version in `user_version` as well, where publishers before the ninth look for it.
"""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from services.publisher.errors import JournalError
from services.publisher.journal.version import VERSION

__all__ = ["migrate"]

_MIGRATIONS: Final = Path(__file__).with_name("migrations")


def migrate(connection: Connection, *, journal: str) -> None:
    """Make the tables those of this publisher, in a transaction in which nobody else does.

    Parameters
    ----------
    journal
        What it is, for errors.

    Raises
    ------
    JournalError
        A newer publisher has written it.
    """
    found = MigrationContext.configure(connection).get_current_revision()
    sqlite = connection.dialect.name == "sqlite"
    if found is None and sqlite:
        found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if found is not None and int(found) > VERSION:
        raise JournalError(
            f"{journal} has version {found}, this publisher reads up to {VERSION}: "
            "use the publisher that wrote it, or move it away (a sweep of the bucket fills a new one)"
        )
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, str(VERSION))
    if sqlite:
        connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
