"""The state: one SQLite file, and a clock that goes on with it."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from services.common.sqlite_file import SqliteFile
from services.converter.state.clock import MachineClock, SteadyClock
from services.converter.state.copies import CopyRecords
from services.converter.state.images import ImageRecords
from services.converter.state.model import StateSummary
from services.converter.state.schema import STEPS
from services.converter.state.thin_images import ThinRecords
from services.converter.state.wishes import WishRecords

__all__ = ["State"]


class State:
    """Everything that the converter remembers; open as long as the context is.

    Parameters
    ----------
    path
        The file; it and its directory are made where they do not exist.
    machine
        The machine's clocks.
    """

    def __init__(self, path: Path, *, machine: MachineClock | None = None) -> None:
        self._file = SqliteFile(
            path,
            steps=STEPS,
            remedy="use the converter that wrote it, or move the file away (everything is looked for anew then, and "
            "what is to be removed is counted anew)",
        )
        self._stack = AsyncExitStack()
        self.clock = SteadyClock(file=self._file, machine=machine or MachineClock())
        self.wishes = WishRecords(file=self._file, clock=self.clock)
        self.images = ImageRecords(file=self._file, clock=self.clock)
        self.copies = CopyRecords(file=self._file, clock=self.clock)
        self.thin = ThinRecords(file=self._file, clock=self.clock)

    async def __aenter__(self) -> Self:
        """Open it; raises `SqliteFileError`."""
        await self._stack.enter_async_context(self._file)
        try:
            await self.clock.start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._stack.aclose()

    async def summary(self) -> StateSummary:
        """Count everything."""
        (row,) = await self._file.run(
            """
            SELECT (SELECT count(*) FROM wishes) AS wishes,
                (SELECT count(*) FROM wishes WHERE failures > 0) AS failing_wishes,
                (SELECT count(*) FROM images) AS images,
                (SELECT count(*) FROM images WHERE missing > 0) AS missing,
                (SELECT count(*) FROM copies WHERE dropped IS NOT NULL) AS dropped,
                (SELECT count(*) FROM thin_images WHERE pushed IS NULL) AS thin_waiting,
                (SELECT count(*) FROM thin_images WHERE pushed IS NULL AND attempts > 0) AS thin_failing,
                (SELECT min(wanted_at) FROM copies WHERE state <> 'published' AND dropped IS NULL) AS oldest_wanted_at,
                (SELECT min(polled_at) FROM wishes) AS oldest_polled_at
            """
        )
        counts = await self._file.run("SELECT state, count(*) FROM copies GROUP BY state")
        states = dict.fromkeys(("wanted", "asked", "published", "failed"), 0)
        return StateSummary(**dict(row), copies=states | {row[0]: row[1] for row in counts})
