"""The polls of one registry: in the order of their times, so many at once, so that none holds up another registry's."""

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from typing import Final

from services.converter.rounds.plan import Planned
from services.converter.state.clock import SteadyClock

__all__ = ["Lane"]

_SIDE_BY_SIDE: Final = 16
"""Polls at a time, so that a repository of many tags holds up no other; the client bounds the requests of all."""
_LONGEST: Final = 60.0
"""Most seconds that a clock is trusted for."""


class Lane:
    """Wishes that wait for their times.

    Parameters
    ----------
    clock
        The steady clock.
    poll
        Polls one; never raises but to end everything.
    """

    def __init__(self, *, clock: SteadyClock, poll: Callable[[Planned], Awaitable[None]]) -> None:
        self._clock = clock
        self._poll = poll
        self._heap: list[tuple[float, tuple[int, int], str]] = []
        self._waiting: dict[str, tuple[float, Planned]] = {}
        self._running: set[str] = set()
        self._slots = asyncio.Semaphore(_SIDE_BY_SIDE)
        self._changed = asyncio.Event()

    def put(self, planned: Planned, due: float) -> None:
        """Have a wish polled at a time of the steady clock, in place of any other time."""
        self._waiting[planned.key] = (due, planned)
        heapq.heappush(self._heap, (due, planned.rank, planned.key))
        self._changed.set()

    def drop(self, key: str) -> None:
        """Have a wish polled no more."""
        self._waiting.pop(key, None)

    async def run(self) -> None:
        """Poll what is due until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                planned = self._take()
                if planned is not None:
                    await self._slots.acquire()
                    group.create_task(self._one(planned))
                    continue
                try:
                    async with asyncio.timeout(self._pause()):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    def _take(self) -> Planned | None:
        """Take the first wish that is due and is not being polled."""
        while self._heap:
            due, _, key = self._heap[0]
            waiting = self._waiting.get(key)
            if waiting is None or waiting[0] != due or key in self._running:
                heapq.heappop(self._heap)  # it has another time by now, or gets one when its poll ends
                continue
            if due > self._clock.steady():
                return None
            heapq.heappop(self._heap)
            del self._waiting[key]
            self._running.add(key)
            return waiting[1]
        return None

    async def _one(self, planned: Planned) -> None:
        try:
            await self._poll(planned)
        finally:
            self._running.discard(planned.key)
            self._slots.release()
        waiting = self._waiting.get(planned.key)
        if waiting is not None:
            heapq.heappush(self._heap, (waiting[0], waiting[1].rank, planned.key))
        self._changed.set()

    def _pause(self) -> float:
        if not self._heap:
            return _LONGEST
        return min(max(self._heap[0][0] - self._clock.steady(), 0.01), _LONGEST)
