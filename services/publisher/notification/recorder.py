"""Writes to the journal what notifications announce: those that come together as one change.

A change takes the database as long as it takes to bring it to the disk, whatever it holds. What arrives meanwhile waits
and becomes the next one. So a notification that comes alone is recorded at once, and a thousand in a second are a
hundred changes.
"""

import asyncio
from collections.abc import Iterable

from services.common.digest import Digest
from services.common.threads import settle
from services.publisher.journal.journal import Journal

__all__ = ["Recorder"]


class _Group:
    """What is recorded together."""

    def __init__(self) -> None:
        self.digests: dict[Digest, None] = {}
        self.waiting = 0
        self.work: asyncio.Task[int] | None = None


class Recorder:
    """Records layers as announced.

    Parameters
    ----------
    journal
        Where.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._turn = asyncio.Lock()
        self._next = _Group()

    async def record(self, digests: Iterable[Digest]) -> int:
        """Record layers; they are on the disk when this returns.

        Returns
        -------
        int
            How many there are to work on that were not before, of all that were recorded together.

        Raises
        ------
        JournalError
            The journal failed; the layers may be recorded nevertheless.
        """
        group = self._next
        group.digests.update(dict.fromkeys(digests))
        if group.work is None:
            group.work = asyncio.create_task(self._write(group))
        group.waiting += 1
        try:
            return await asyncio.shield(group.work)
        except asyncio.CancelledError:
            await self._left(group, group.work)
            raise

    async def _write(self, group: _Group) -> int:
        async with self._turn:
            self._next = _Group()
            return await self._journal.announce(group.digests)

    async def _left(self, group: _Group, work: asyncio.Task[int]) -> None:
        """End the work where the last one that waited for it has been cancelled."""
        group.waiting -= 1
        if group.waiting:
            return
        if self._next is group:
            self._next = _Group()
        work.cancel()
        await settle(work)
