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
    "NOW",
    "ONE",
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
    "part",
    "time_of_day",
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


class _IsListed(FunctionElement[Any]):
    """Whether a text is an element of a JSON array of texts."""

    name = "is_listed"
    inherit_cache = True


class _Later(FunctionElement[Any]):
    """The larger of two numbers."""

    name = "later"
    inherit_cache = True


class _Contains(FunctionElement[Any]):
    """Whether a text contains another."""

    name = "contains"
    inherit_cache = True


class _TimeOfDay(FunctionElement[Any]):
    """Seconds since the epoch by the clock of the database's machine, or what is given where that is this one."""

    name = "time_of_day"
    inherit_cache = True


class _Part(FunctionElement[Any]):
    """An element of a JSON array, as text or number."""

    name = "part"
    inherit_cache = True


@compiles(_IsListed, "sqlite")
def _listed_in_sqlite(clause: _IsListed, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    column, values = (compiler.process(part, **options) for part in clause.clauses)
    return f"({column} IN (SELECT value FROM json_each({values})))"  # noqa: S608 - names of a column and a parameter


@compiles(_IsListed, "postgresql")
def _listed_in_postgresql(clause: _IsListed, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    # With IN it expects a hundred elements, and reads a table of thousands of rows as a whole for a single one of them.
    column, values = (compiler.process(part, **options) for part in clause.clauses)
    return f"({column} = ANY (ARRAY(SELECT json_array_elements_text(CAST({values} AS json)))))"


def _compiled(element: type[FunctionElement[Any]], *, sqlite: str, postgresql: str) -> None:
    def render(form: str) -> Any:  # noqa: ANN401 - what SQLAlchemy takes
        def rendered(clause: FunctionElement[Any], compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
            return form.format(*(compiler.process(each, **options) for each in clause.clauses))

        return rendered

    compiles(element, "sqlite")(render(sqlite))
    compiles(element, "postgresql")(render(postgresql))


_compiled(_Values, sqlite="json_each({})", postgresql="json_array_elements_text(CAST({} AS json))")
_compiled(_Pairs, sqlite="json_each({})", postgresql="json_each_text(CAST({} AS json))")
_compiled(_Later, sqlite="max({}, {})", postgresql="greatest({}, {})")
_compiled(_Contains, sqlite="(instr({}, {}) > 0)", postgresql="(strpos({}, {}) > 0)")
_compiled(_TimeOfDay, sqlite="{0}", postgresql="CAST(extract(epoch FROM clock_timestamp()) AS double precision)")
_compiled(_Part, sqlite="({0} ->> {1})", postgresql="(CAST({0} AS json) ->> {1})")


def listed(name: str) -> Select[Any]:
    """The texts of a list that is given as a JSON array."""
    return select(_Values(given(name)).table_valued("value").c.value)


def is_listed(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Whether a column that an index begins with is one of the texts of a list that is given as a JSON array."""
    return _IsListed(column, given(name))


def mapped(name: str) -> TableValuedAlias:
    """The columns `key` and `value` of what is given as a JSON object; numbers are to be cast."""
    return _Pairs(given(name)).table_valued("key", "value")


def later(one: ColumnElement[Any], other: ColumnElement[Any]) -> ColumnElement[Any]:
    """The larger of two numbers, neither of which is NULL."""
    return _Later(one, other)


def time_of_day(name: str) -> ColumnElement[Any]:
    """The time of day, in seconds since the epoch: the database's own, which counts where several machines use it.

    Parameters
    ----------
    name
        The parameter that has this machine's, which counts where the database is a file.
    """
    return _TimeOfDay(given(name, SECONDS))


def part(array: ColumnElement[Any], number: int) -> ColumnElement[Any]:
    """An element of a JSON array, counted from 0, as SQLite takes it from there, or as a text: it is to be cast."""
    return _Part(array, literal_column(str(number), Integer()))


def contains(text: ColumnElement[Any], part: ColumnElement[Any]) -> ColumnElement[Any]:
    """Whether a text contains another."""
    return _Contains(text, part)
