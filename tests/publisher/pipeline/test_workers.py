"""Who fetches next: nobody with much to do holds up those with little."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from services.publisher.pipeline.workers import Workers


class _Crowd:
    """Tasks that want workers, and those that have one, in the order in which they got it."""

    def __init__(self, workers: Workers, group: asyncio.TaskGroup) -> None:
        self._workers = workers
        self._group = group
        self.working: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}

    async def join(self, name: str, *owners: str) -> asyncio.Task[None]:
        """Let one want a worker."""
        self.ends[name] = asyncio.Event()
        task = self._group.create_task(self._work(name, owners))
        await _settled()
        return task

    async def end(self, name: str) -> None:
        """Let one give its worker back."""
        self.ends[name].set()
        await _settled()

    async def _work(self, name: str, owners: tuple[str, ...]) -> None:
        async with self._workers.one(*owners):
            self.working.append(name)
            try:
                await self.ends[name].wait()
            finally:
                self.working.remove(name)


async def _settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def _crowd(count: int) -> AsyncIterator[_Crowd]:
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        crowd = _Crowd(Workers(count), group)
        yield crowd
        for name in list(crowd.ends):
            await crowd.end(name)


async def test_a_huge_image_leaves_a_worker_for_others() -> None:
    async with _crowd(3) as crowd:
        for number in range(5):
            await crowd.join(f"huge {number}", "huge", "one registry")
        assert crowd.working == ["huge 0", "huge 1"]
        await crowd.join("small", "small", "another registry")
        assert crowd.working == ["huge 0", "huge 1", "small"]


async def test_a_slow_registry_leaves_a_worker_for_others() -> None:
    async with _crowd(3) as crowd:
        for number in range(5):
            await crowd.join(f"slow {number}", f"image {number}", "slow registry")
        await crowd.join("quick", "quick", "another registry")
        assert crowd.working == ["slow 0", "slow 1", "quick"]


async def test_whoever_has_the_fewest_comes_first() -> None:
    async with _crowd(3) as crowd:
        for number in range(3):
            await crowd.join(f"layer {number}")  # of the bucket, which is not limited
        for number in range(3):
            await crowd.join(f"large {number}", "large")
        await crowd.join("small", "small")
        await crowd.end("layer 0")
        assert crowd.working == ["layer 1", "layer 2", "large 0"]
        await crowd.end("layer 1")
        assert crowd.working == ["layer 2", "large 0", "small"]


async def test_one_worker_alone_serves_everybody() -> None:
    async with _crowd(1) as crowd:
        await crowd.join("one", "one", "registry")
        await crowd.join("other", "other", "registry")
        assert crowd.working == ["one"]
        await crowd.end("one")
        assert crowd.working == ["other"]


@pytest.mark.parametrize("granted", [False, True], ids=["waiting", "granted"])
async def test_whoever_is_cancelled_leaves_its_worker_to_others(granted: bool) -> None:  # noqa: FBT001 - a parameter
    async with _crowd(1) as crowd:
        await crowd.join("one")
        task = await crowd.join("cancelled")
        await crowd.join("last")
        if granted:
            crowd.ends["one"].set()
            await asyncio.sleep(0)  # the worker is given, and whoever has it has not taken note yet
        task.cancel()
        await _settled()
        await crowd.end("one")
        assert crowd.working == ["last"]
