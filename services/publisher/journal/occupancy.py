"""Which versions' publishers work with a journal in PostgreSQL, told by locks that they share.

Every connection that a publisher works by shares an advisory lock on its version. Whoever changes the tables so that
publishers of some version cannot work with them any more takes the locks on such versions for himself meanwhile. He
cannot while one of those is connected, and none connects before he has ended; then it finds that it may not.
"""

from typing import Final

from services.publisher.journal.version import VERSION

__all__ = ["MAY_WORK", "OCCUPY", "keep_away"]

_CLASS: Final = 0x7468696E
"""What the locks have in common: "thin", in ASCII. The other half of each is a version."""
OCCUPY: Final = f"SELECT pg_advisory_lock_shared({_CLASS}, {VERSION})"
"""What a connection begins with, and waits for."""
MAY_WORK: Final = f"SELECT {VERSION} BETWEEN oldest AND version_num::bigint FROM alembic_version"  # noqa: S608 - constants
"""Whether a publisher of this version may work with the tables; asked after `OCCUPY`."""


def keep_away(version: int) -> str:
    """Return what takes the lock on a version until the connection ends, and tells whether it could."""
    return f"SELECT pg_try_advisory_lock({_CLASS}, {version})"
