"""What the journal's statements are made of, besides what SQLAlchemy has: the same in SQLite and PostgreSQL."""

from typing import Final

from services.common.database.expressions import (
    ANY,
    NOW,
    ONE,
    among,
    constant,
    contains,
    given,
    insert,
    is_listed,
    later,
    limit,
    listed,
    mapped,
    time_of_day,
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
    "is_listed",
    "later",
    "limit",
    "listed",
    "mapped",
]

CLOCK: Final = time_of_day("now")
"""The present time by the clock that all publishers share. Other times are by that of whoever runs a statement."""
WIDEST: Final = 1024
"""The number of units that bounds what an earlier failure lets be part of a batch."""
