"""Work that somebody else can end."""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Hashable
from typing import Any, Generic, TypeVar

from services.node.errors import InterruptedWorkError

__all__ = ["Interruptions"]

_Name = TypeVar("_Name", bound=Hashable)
_Result = TypeVar("_Result")


class Interruptions(Generic[_Name]):
    """What works for each of any number of things, and ends when the thing goes."""

    def __init__(self) -> None:
        self._tasks: defaultdict[_Name, set[asyncio.Task[Any]]] = defaultdict(set)
        self._reasons: dict[asyncio.Task[Any], str] = {}

    async def run(self, name: _Name, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Do something for a thing, and return what comes of it.

        Raises
        ------
        InterruptedWorkError
            The work was interrupted, and has ended.
        """
        task = asyncio.create_task(work)
        self._tasks[name].add(task)
        try:
            return await task
        except asyncio.CancelledError:
            # Not so if it is the caller who is cancelled, and the work with it.
            if task in self._reasons and not _cancelled():
                raise InterruptedWorkError(self._reasons[task]) from None
            raise
        finally:
            self._reasons.pop(task, None)
            self._tasks[name].discard(task)
            if not self._tasks[name]:
                del self._tasks[name]

    def interrupt(self, name: _Name, reason: str) -> None:
        """Let whatever works for a thing end; it may take a while to do so."""
        for task in self._tasks.get(name, ()):
            self._reasons[task] = reason
            task.cancel()


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
