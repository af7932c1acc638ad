"""Tasks that succeed together, or fail by what the first of them met."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

__all__ = ["all_of", "together"]

_Result = TypeVar("_Result")


@asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """Run tasks until all have ended; the first failure cancels the others, and is raised as it is, in no group."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def all_of(works: Iterable[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """Do works side by side; return their results, in their order, or raise as `together`."""
    async with together() as group:
        tasks = [group.create_task(work) for work in works]
    return [task.result() for task in tasks]
