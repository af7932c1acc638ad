"""What the state needs of a database, and whose turn it is to work with it."""

import asyncio
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol, Self

from services.common.database.interface import Row, Run, Statement

__all__ = ["StateDatabase"]


class StateDatabase(Protocol):
    """A state's database, open as long as the context is. All methods raise `StateError`.

    Several converters may open one. Only the one that has the turn may change something, and none can that has lost it.
    """

    async def __aenter__(self) -> Self:
        """Open it, and make its tables those of this version."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it, and give the turn to another converter."""

    async def run(self, statement: Statement, /, **parameters: object) -> list[Row]:
        """Run a statement; a loss of power may take the last changes back."""

    def transaction(self) -> AbstractAsyncContextManager[Run]:
        """Run several statements as one change: all or none."""

    async def try_to_begin(self) -> bool:
        """Take the turn if no other converter has it; tell whether this one has it now."""

    async def begin(self, stopped: asyncio.Event) -> bool:
        """Wait for this converter's turn; tell whether it has come, and nobody wants it to stop before."""

    async def confirm(self) -> None:
        """Return if this converter still has the turn, as the database says now."""

    async def hold(self) -> None:
        """Keep the turn until cancelled."""
