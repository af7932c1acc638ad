"""Blocking work off the event loop, which is over when the call returns, also when the caller is cancelled."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Stop", "in_thread"]

Result = TypeVar("Result")


class Stop:
    """Tells work in a thread that nobody waits for its result any more."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask the work to end."""
        self._event.set()

    def check(self) -> None:
        """Raise where the work has been asked to end.

        Raises
        ------
        InterruptedError
            It has.
        """
        if self._event.is_set():
            raise InterruptedError("the publisher is stopping")


async def in_thread(work: Callable[[Stop], Result]) -> Result:
    """Run blocking work in a thread.

    A thread cannot be cancelled, and going on while it still writes would race with it. So a cancelled caller asks the
    work to stop and waits until it has.

    Parameters
    ----------
    work
        Takes the `Stop` that it looks at now and then where it can take long.
    """
    stop = Stop()
    thread = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        stop.set()
        while not thread.done():
            try:
                await asyncio.wait((thread,))
            except asyncio.CancelledError:
                continue  # a second cancellation changes nothing about the thread
        if not thread.cancelled():
            thread.exception()  # the work has ended; what it came to interests nobody any more
        raise
