"""What statements are made of, besides what SQLAlchemy has: the same in SQLite and PostgreSQL.

A list is one parameter, a JSON text, however long it is: SQLite takes 32,766 parameters, and PostgreSQL 65,535.
"""

from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Integer,
    Select,
    TableValuedAlias,
    Text,
    bindparam,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from services.common.database.columns import SECONDS

__all__ = [
    "ANY",
    "CLOCK",
    "NOW",
    "ONE",
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

# `insert` is PostgreSQL's since only that one can say ON CONFLICT; SQLite's compiler reads it as its own.


def given(name: str, kind: TypeEngine[Any] | None = None) -> BindParameter[Any]:
    """A parameter that whoever runs the statement gives."""
    return bindparam(name, type_=kind)


NOW: Final = given("now", SECONDS)
"""The present time, which is given to every statement."""
ANY: Final = literal_column("1") == literal_column("1")
"""A condition that all rows satisfy: SQLite cannot read INSERT ... SELECT ... ON CONFLICT without one."""
ONE: Final = literal_column("1", Integer())


def constant(value: StrEnum) -> ColumnElement[Any]:
    """A value as part of the statement: what an index is limited to is compared with that."""
    return literal_column(f"'{value}'", Text())


def among(column: ColumnElement[Any], *values: StrEnum) -> ColumnElement[bool]:
    """Whether a column has one of some values."""
    return column.in_([constant(value) for value in values])


def limit(name: str = "limit") -> BindParameter[Any]:
    """A parameter that says how many rows are wanted at most."""
    return given(name, Integer())


class _Values(FunctionElement[Any]):
    """The elements of a JSON array of texts."""

    name = "listed"
    inherit_cache = True


class _Pairs(FunctionElement[Any]):
    """The names and values of a JSON object."""

    name = "mapped"
    inherit_cache = True


class _Later(FunctionElement[Any]):
    """The larger of two numbers."""

    name = "later"
    inherit_cache = True


class _Contains(FunctionElement[Any]):
    """Whether a text contains another."""

    name = "contains"
    inherit_cache = True


class _Clock(FunctionElement[Any]):
    """The database's present time."""

    name = "clock"
    inherit_cache = True
    type = SECONDS


def _compiled(element: type[FunctionElement[Any]], *, sqlite: str, postgresql: str) -> None:
    def render(form: str) -> Any:  # noqa: ANN401 - what SQLAlchemy takes
        def rendered(clause: FunctionElement[Any], compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
            return form.format(compiler.process(clause.clause_expr.element, **options))

        return rendered

    compiles(element, "sqlite")(render(sqlite))
    compiles(element, "postgresql")(render(postgresql))


_compiled(_Values, sqlite="json_each({})", postgresql="json_array_elements_text(CAST({} AS json))")
_compiled(_Pairs, sqlite="json_each({})", postgresql="json_each_text(CAST({} AS json))")
_compiled(_Later, sqlite="max({})", postgresql="greatest({})")
_compiled(
    _Clock,
    sqlite="((julianday('now') - 2440587.5) * 86400.0)",
    postgresql="CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS double precision)",
)
_compiled(_Contains, sqlite="(instr({}) > 0)", postgresql="(strpos({}) > 0)")

CLOCK: Final = _Clock()
"""The present time by the clock that all who use a database share, in seconds since the epoch: its server's, or the
machine's where it is a file. Other times are by the clock of whoever runs a statement, see `NOW`."""


def listed(name: str) -> Select[Any]:
    """The texts of a list that is given as a JSON array."""
    return select(_Values(given(name)).table_valued("value").c.value)


def mapped(name: str) -> TableValuedAlias:
    """The columns `key` and `value` of what is given as a JSON object; numbers are to be cast."""
    return _Pairs(given(name)).table_valued("key", "value")


def later(one: ColumnElement[Any], other: ColumnElement[Any]) -> ColumnElement[Any]:
    """The larger of two numbers, neither of which is NULL."""
    return _Later(one, other)


def contains(text: ColumnElement[Any], part: ColumnElement[Any]) -> ColumnElement[Any]:
    """Whether a text contains another."""
    return _Contains(text, part)
