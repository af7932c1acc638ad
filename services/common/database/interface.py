"""What is needed of a database, and statements as its driver takes them.

SQLAlchemy writes the statements, once for each database, and the driver runs them: SQLAlchemy's own way to
aiosqlite makes several trips to the connection's thread for each, and takes five times as long.
"""

from collections.abc import Awaitable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self
from weakref import WeakKeyDictionary

from sqlalchemy import Delete, Dialect, Insert, Select, Update

__all__ = ["Database", "Row", "Run", "Statement", "Statements"]

Statement = Select[Any] | Insert | Update | Delete
"""What can be run."""


class Row(Protocol):
    """One row of a result, by the names of its columns."""

    def keys(self) -> Iterable[str]:
        """Return the names."""

    def __getitem__(self, name: str, /) -> Any:  # noqa: ANN401 - whatever a column holds
        ...


class Run(Protocol):
    """Runs a statement; the parameter `now` is the present time."""

    def __call__(self, statement: Statement, /, **parameters: object) -> Awaitable[Sequence[Row]]:
        """Return its rows."""


class Database(Protocol):
    """A database, open as long as the context is. What its errors are, whoever makes it says."""

    shared: bool
    """Whether publishers on several machines may have it open."""

    async def __aenter__(self) -> Self:
        """Open it, and make its tables those of this version.

        Raises
        ------
        SuiteError
            It holds something else, was written by a newer program, or cannot be opened.
        """

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""

    async def run(self, statement: Statement, /, **parameters: object) -> Sequence[Row]:
        """Run a statement; what it changes is on the disk when this returns. `now` is the present time.

        Raises
        ------
        SuiteError
            It failed.
        """

    async def run_passing(self, statement: Statement, /, **parameters: object) -> Sequence[Row]:
        """Run a statement that changes what is found out again after a loss of power; else as `run`."""

    async def run_ahead(self, statement: Statement, /, **parameters: object) -> Sequence[Row]:
        """Run a statement however much else waits for the database; else as `run_passing`. One at a time."""

    def transaction(self) -> AbstractAsyncContextManager[Run]:
        """Run several statements as one change, which is on the disk at the end of the context; all or none.

        Raises
        ------
        SuiteError
            It failed.
        """


@dataclass(frozen=True, slots=True)
class _Written:
    text: str
    constants: dict[str, Any]
    """Values of the parameters that the statement brings along."""


class Statements:
    """Statements as one kind of database takes them, each written once as long as it lives.

    Parameters
    ----------
    dialect
        The kind.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._written: WeakKeyDictionary[Statement, _Written] = WeakKeyDictionary()

    def write(self, statement: Statement, parameters: dict[str, object]) -> tuple[str, dict[str, object]]:
        """Return a statement's text, and all of its parameters."""
        written = self._written.get(statement)
        if written is None:
            compiled = statement.compile(dialect=self._dialect)
            constants = {name: bind.value for bind, name in compiled.bind_names.items() if not bind.required}
            written = self._written[statement] = _Written(str(compiled), constants)
        return written.text, {**parameters, **written.constants}
