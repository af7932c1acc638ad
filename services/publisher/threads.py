"""Long blocking work in threads, which can be told to stop."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from services.common.threads import settle

__all__ = ["Stop", "in_thread"]

_Result = TypeVar("_Result")


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


async def in_thread(threads: Executor, work: Callable[[Stop], _Result]) -> _Result:
    """Run blocking work that may take minutes.

    A thread cannot be cancelled, and what it still writes would race with the cleaning up. So if the caller is
    cancelled, the work is asked to stop and waited for.

    Parameters
    ----------
    threads
        Where it runs.
    work
        Takes the `Stop` that it looks at now and then if it can take long.
    """
    stop = Stop()
    future = asyncio.get_running_loop().run_in_executor(threads, work, stop)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop.set()
        await settle(future)
        raise
