"""Blocking work in threads that is over when its caller goes on."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

__all__ = ["run_to_end", "settle"]

_Result = TypeVar("_Result")


async def settle(future: asyncio.Future[_Result]) -> None:
    """Wait until a future is done, whatever it comes to and however often the caller is cancelled meanwhile."""
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()  # so that nobody is told of a failure that nobody waits for


async def run_to_end(executor: Executor, work: Callable[[], _Result]) -> _Result:
    """Run blocking work in a thread.

    A thread cannot be cancelled. If the caller is, the work is waited for before the cancellation goes on, since the
    caller will close the files that the work uses. So the work must be short: seconds at most.
    """
    future = asyncio.get_running_loop().run_in_executor(executor, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await settle(future)
        raise
