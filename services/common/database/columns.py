"""Kinds of columns, and conditions on them, that are the same in SQLite and PostgreSQL.

Every time is in seconds. What is true or false is 1 or 0, in both databases. Names, digests and states are compared by
their bytes, whatever the database's own order of texts is.
"""

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import REAL, BigInteger, CheckConstraint, Double, Integer, Text, text
from sqlalchemy.dialects.postgresql import TEXT
from sqlalchemy.types import TypeEngine

__all__ = ["LINE", "NUMBER", "SECONDS", "TEXTS", "kept", "one_of", "where"]

LINE: Final = Text().with_variant(TEXT(collation="C"), "postgresql")
"""What is compared and sorted."""
NUMBER: Final = BigInteger().with_variant(Integer(), "sqlite")
SECONDS: Final[TypeEngine[float]] = Double().with_variant(REAL(), "sqlite")
TEXTS: Final = Text()
"""What people or programs read."""


def kept(text: str) -> str:
    """Return a text as both kinds of databases keep it: PostgreSQL's have no NUL."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def where(condition: str) -> dict[str, Any]:
    """Options of an index that has only the rows for which a condition holds."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


def one_of(column: str, values: Iterable[str]) -> CheckConstraint:
    """Have a column hold one of some values."""
    return CheckConstraint(f"{column} IN ({', '.join(repr(str(value)) for value in values)})")
