"""The state: a database, and a clock that goes on with it."""

from contextlib import AsyncExitStack
from typing import Final, Self

from sqlalchemy import ColumnElement, Table, func, literal_column, select

from services.converter.state.clock import MachineClock, SteadyClock
from services.converter.state.copies import CopyRecords
from services.converter.state.database import StateDatabase
from services.converter.state.images import ImageRecords
from services.converter.state.model import StateSummary
from services.converter.state.tables import copies, images, thin_images, wishes
from services.converter.state.thin_images import ThinRecords
from services.converter.state.wishes import WishRecords

__all__ = ["State"]


def _count(table: Table, *conditions: ColumnElement[bool]) -> ColumnElement[int]:
    return select(func.count()).select_from(table).where(*conditions).scalar_subquery()


_unpublished: Final = (copies.c.state != "published", copies.c.dropped.is_(None))
_not_pushed: Final = thin_images.c.pushed.is_(None)
_SUMMARY: Final = select(
    _count(wishes).label("wishes"),
    _count(wishes, wishes.c.failures > 0).label("failing_wishes"),
    _count(images).label("images"),
    _count(images, images.c.missing > literal_column("0")).label("missing"),
    _count(copies, copies.c.dropped.is_not(None)).label("dropped"),
    _count(thin_images, _not_pushed).label("thin_waiting"),
    _count(thin_images, _not_pushed, thin_images.c.attempts > 0).label("thin_failing"),
    select(func.min(copies.c.wanted_at)).where(*_unpublished).scalar_subquery().label("oldest_wanted_at"),
    select(func.min(wishes.c.polled_at)).scalar_subquery().label("oldest_polled_at"),
)
_STATES: Final = select(copies.c.state, func.count().label("number")).group_by(copies.c.state)


class State:
    """Everything that the converter remembers; open as long as the context is.

    Parameters
    ----------
    database
        Where it is.
    machine
        The machine's clocks.
    """

    def __init__(self, database: StateDatabase, *, machine: MachineClock | None = None) -> None:
        self.database = database
        """Also says whose turn it is."""
        self._stack = AsyncExitStack()
        self.clock = SteadyClock(database=database, machine=machine or MachineClock())
        self.wishes = WishRecords(database=database)
        self.images = ImageRecords(database=database, clock=self.clock)
        self.copies = CopyRecords(database=database, clock=self.clock)
        self.thin = ThinRecords(database=database, clock=self.clock)

    async def __aenter__(self) -> Self:
        """Open it, to read in; raises `StateError`."""
        await self._stack.enter_async_context(self.database)
        try:
            await self.clock.read()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._stack.aclose()

    async def begin(self) -> None:
        """Go on where the converter was that had its turn before; raises `StateError`."""
        await self.clock.read()
        await self.clock.save()

    async def summary(self) -> StateSummary:
        """Count everything; raises `StateError`."""
        (row,) = await self.database.run(_SUMMARY)
        counts = {row["state"]: row["number"] for row in await self.database.run(_STATES)}
        states = dict.fromkeys(("wanted", "asked", "published", "failed"), 0)
        return StateSummary(**dict(row), copies=states | counts)
