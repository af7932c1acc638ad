"""What the journal's statements are made of, besides what SQLAlchemy has: the same in SQLite and PostgreSQL."""

from typing import Final

from services.common.database.expressions import (
    ANY,
    CLOCK,
    NOW,
    ONE,
    among,
    constant,
    contains,
    given,
    insert,
    later,
    limit,
    listed,
    mapped,
)

__all__ = [
    "ANY",
    "CLOCK",
    "NOW",
    "ONE",
    "WIDEST",
    "among",
    "constant",
    "contains",
    "given",
    "insert",
    "later",
    "limit",
    "listed",
    "mapped",
]

WIDEST: Final = 1024
"""The number of units that bounds what an earlier failure lets be part of a batch."""
