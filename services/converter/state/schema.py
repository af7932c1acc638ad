"""The version of the tables, and how those of an earlier one become it.

The third is the first that Alembic knows, and the first on PostgreSQL.
"""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from services.common.database.versions import read_tables, upgrade
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
    found = read_tables(connection).version
    if found > VERSION:
        raise StateError(
            f"{state} has version {found}, this converter reads up to {VERSION}: use the converter that wrote it, or "
            "another state (everything is looked for anew then, and what is to be removed is counted anew)"
        )
    upgrade(connection, migrations=_MIGRATIONS, version=VERSION)
