"""Blocking work on the state of the snapshotter: off the event loop, one job at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["SerialThread"]

_T = TypeVar("_T")


class SerialThread:
    """One thread, which does what it is given in turn. Each job is short: others wait for it."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="snapshots")

    async def run(self, job: Callable[[], _T]) -> _T:
        """Run a job. One that has begun ends, also if nobody waits for it any more."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, job)

    def close(self) -> None:
        """Wait until the last job has ended."""
        self._executor.shutdown()
