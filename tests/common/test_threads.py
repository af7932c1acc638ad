import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiofiles
import pytest

from services.common.threads import run_to_end, settle, to_end


async def test_the_result_or_failure_of_the_work_comes_back() -> None:
    with ThreadPoolExecutor(1) as threads:
        assert await run_to_end(threads, lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await run_to_end(threads, lambda: 1 // 0)


async def test_a_cancelled_caller_goes_on_when_the_work_is_over() -> None:
    started, finish = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    ended = []

    def work() -> None:
        loop.call_soon_threadsafe(started.set)
        finish.wait(120)
        ended.append(True)

    with ThreadPoolExecutor(1) as threads:
        task = asyncio.create_task(run_to_end(threads, work))
        await started.wait()
        for _ in range(3):  # however often it is cancelled
            task.cancel()
            await asyncio.wait((task,), timeout=0.02)
            assert not task.done()
        finish.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [True]


async def test_a_coroutine_that_uses_several_calls_is_cancelled_in_none_of_them(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    closed = []

    async def read() -> bytes:
        async with aiofiles.open(pipe, "rb") as file:  # waits for somebody who writes
            try:
                return await file.read()
            finally:
                closed.append(True)

    task = asyncio.create_task(to_end(read()))
    for _ in range(3):
        await asyncio.wait((task,), timeout=0.02)
        task.cancel()
    assert not task.done()
    await asyncio.to_thread(pipe.write_bytes, b"content")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [True]


async def test_settling_waits_for_whatever_the_future_comes_to() -> None:
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()
    loop.call_soon(failed.set_exception, ValueError())
    await settle(failed)
    assert failed.done()

    cancelled: asyncio.Future[None] = loop.create_future()
    loop.call_soon(cancelled.cancel)
    await settle(cancelled)
    assert cancelled.cancelled()
