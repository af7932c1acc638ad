"""Blocking work in threads that is over when its caller goes on."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import TypeVar

__all__ = ["Stop", "in_thread", "run_to_end", "settle", "to_end"]

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
            raise InterruptedError("the work was asked to stop")


async def settle(future: asyncio.Future[_Result]) -> None:
    """Wait until a future is done, whatever it comes to and however often the caller is cancelled meanwhile."""
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()  # so that nobody is told of a failure that nobody waits for


async def to_end(work: Awaitable[_Result]) -> _Result:
    """Wait for work that goes on in a thread, such as a call of aiofiles.

    A thread cannot be cancelled. If the caller is, the work is waited for before the cancellation goes on, since the
    caller will close the files that the work uses. So the work must be short: seconds at most.
    """
    future = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await settle(future)
        raise


async def run_to_end(executor: Executor, work: Callable[[], _Result]) -> _Result:
    """Run blocking work in a thread, and wait for it as `to_end` does."""
    return await to_end(asyncio.get_running_loop().run_in_executor(executor, work))


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
