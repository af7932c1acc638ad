"""The memory that work on layers may take at the same time, however much work there is.

What a commit takes does not depend on its layer's size, but for small ones: buffers of compression, then those of
parts that are sent. So work says beforehand what it will hold, and waits until there is room for that. It never waits
while it holds something, so that there is always somebody who goes on.

Small work has a share of its own: it is done while large work waits, and large work is not held up by it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from services.node.metrics import NodeMetrics

__all__ = ["LEAST_MEMORY", "SMALL_WORK", "WorkMemory"]

_MIB: Final = 1 << 20

LEAST_MEMORY: Final = 32 * _MIB
"""Bytes with which work of every kind can be done, one piece after the other."""

SMALL_WORK: Final = 6 * _MIB
"""What work may hold at most that counts as small, in bytes."""

_SMALL_SHARE: Final = 4
"""Small work has the fourth part of all."""


class WorkMemory:
    """Admits work by the memory that it will hold.

    Parameters
    ----------
    limit
        Bytes for all work, at least `LEAST_MEMORY`.
    metrics
        Told what is held, and of waits.
    """

    def __init__(self, limit: int, *, metrics: NodeMetrics) -> None:
        small = limit // _SMALL_SHARE
        self._small = _Share(small)
        self._large = _Share(limit - small)
        self._metrics = metrics

    @asynccontextmanager
    async def begin(self, size: int) -> AsyncIterator[None]:
        """Hold memory for new work as long as the context lasts; it waits for its turn before.

        Parameters
        ----------
        size
            Bytes that the work holds at most. What is more than there is for work of its kind counts as all of that.
        """
        share = self._share(size)
        async with self._held(share, size, share.new):
            yield

    @asynccontextmanager
    async def go_on(self, size: int) -> AsyncIterator[None]:
        """Hold memory for the next step of work that holds none now: it comes before all work that is new."""
        share = self._share(size)
        async with self._held(share, size, share.begun):
            yield

    def _share(self, size: int) -> "_Share":
        return self._small if size <= SMALL_WORK else self._large

    @asynccontextmanager
    async def _held(self, share: "_Share", size: int, queue: "_Queue") -> AsyncIterator[None]:
        size = min(size, share.size)
        if share.waiting or size > share.free:
            with self._metrics.memory_waits.one():
                await share.wait(size, queue)
        else:
            share.free -= size
        self._metrics.work_memory.inc(size)
        try:
            yield
        finally:
            self._metrics.work_memory.dec(size)
            share.give_back(size)


_Queue = deque[tuple[int, asyncio.Future[None]]]
"""What waits, and for how many bytes each."""


class _Share:
    """Memory for work of one kind."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.free = size
        self.begun: _Queue = deque()
        self.new: _Queue = deque()

    @property
    def waiting(self) -> bool:
        """Whether anything waits."""
        return bool(self.begun or self.new)

    async def wait(self, size: int, queue: _Queue) -> None:
        """Wait for the turn of so many bytes, which are held then."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append((size, turn))
        # What has begun does not wait for what is new.
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                # Those behind it may fit where it did not.
                self._admit()
            else:
                self.give_back(size)
            raise

    def give_back(self, size: int) -> None:
        """Take memory back, and let those have it whose turn it is."""
        self.free += size
        self._admit()

    def _admit(self) -> None:
        while queue := self.begun or self.new:
            size, turn = queue[0]
            if turn.cancelled():
                queue.popleft()
                continue
            if size > self.free:
                return
            queue.popleft()
            self.free -= size
            turn.set_result(None)
