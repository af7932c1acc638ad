"""The same work on many things, a few at a time."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

from services.common.together import together

__all__ = ["WORKERS", "failures", "side_by_side"]

_Item = TypeVar("_Item")

WORKERS: Final = 8
"""Things that are worked on at a time: tasks take memory, so there are never as many of them as there are things."""


async def side_by_side(
    items: Iterable[_Item], work: Callable[[_Item], Awaitable[object]], *, workers: int = WORKERS
) -> None:
    """Do a work for every item; the first failure ends the others, and is raised."""
    waiting = iter(items)
    async with together() as group:
        for first in islice(waiting, workers):
            group.create_task(_each(first, waiting, work))


async def failures(items: Iterable[_Item], work: Callable[[_Item], Awaitable[bool]]) -> int:
    """Do a work for every item as `side_by_side`; return how many of them say that it failed."""
    outcomes: list[bool] = []

    async def judged(item: _Item) -> None:
        outcomes.append(await work(item))

    await side_by_side(items, judged)
    return outcomes.count(False)


async def _each(first: _Item, others: Iterator[_Item], work: Callable[[_Item], Awaitable[object]]) -> None:
    await work(first)
    for item in others:
        await work(item)
