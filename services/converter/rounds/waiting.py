"""Work that is done when it is due, or when somebody says that there may be more of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from services.converter.state.clock import SteadyClock

__all__ = ["Backoff", "DueWork"]

_LONGEST: Final = 60.0
"""Most seconds between two looks: clocks are not trusted further than that."""


class DueWork:
    """Does work again and again.

    Parameters
    ----------
    drain
        Does all that is due.
    next_due
        Tells when more will be, by the steady clock; None if nothing waits.
    clock
        The steady clock.
    more
        Set by whoever knows that there may be more to do.
    """

    def __init__(
        self,
        *,
        drain: Callable[[], Awaitable[object]],
        next_due: Callable[[], Awaitable[float | None]],
        clock: SteadyClock,
        more: asyncio.Event,
    ) -> None:
        self._drain = drain
        self._next_due = next_due
        self._clock = clock
        self._more = more

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._more.clear()
            await self._drain()
            due = await self._next_due()
            pause = _LONGEST if due is None else min(max(due - self._clock.steady(), 0.05), _LONGEST)
            try:
                async with asyncio.timeout(pause):
                    await self._more.wait()
            except TimeoutError:
                continue


class Backoff:
    """How long to wait after failures: twice as long after each, up to a bound.

    Parameters
    ----------
    first
        After the first one, in seconds.
    last
        At most, in seconds.
    """

    def __init__(self, *, first: float, last: float) -> None:
        self._first = first
        self._last = last

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in succession before this one."""
        return min(self._first * 2.0 ** min(failures, 40), self._last)
