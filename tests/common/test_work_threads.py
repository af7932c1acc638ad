"""Threads for blocking work: as many as there is work, each used again."""

import asyncio
import contextlib
import contextvars
import os
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from services.common import work_threads
from services.common.work_threads import begin_in_thread

Workers = Callable[[], list[threading.Thread]]


@pytest.fixture(autouse=True)
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    """Begin without idle threads, and let those of the test end; those of other tests wait meanwhile."""
    others = {thread.ident for thread in threading.enumerate()}
    monkeypatch.setattr(work_threads, "_idle", [])
    monkeypatch.setattr(work_threads, "_KEPT", 0.2)

    def workers() -> list[threading.Thread]:
        return [
            thread
            for thread in threading.enumerate()
            if thread.name.startswith("blocking-work") and thread.ident not in others
        ]

    yield workers
    for thread in workers():
        thread.join(5)


async def test_a_result_an_error_and_the_callers_context() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    variable.set(7)
    assert await begin_in_thread(variable.get) == 7
    with pytest.raises(ZeroDivisionError):
        await begin_in_thread(lambda: 1 // 0)
    with pytest.raises(SystemExit):
        await begin_in_thread(sys.exit)
    assert await begin_in_thread(variable.get) == 7


async def test_work_one_after_another_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_threads, "_KEPT", 3)  # longer than the machine is busy with others
    assert len({await begin_in_thread(threading.get_ident) for _ in range(50)}) == 1


async def test_work_that_waits_for_other_work_gets_it() -> None:
    barrier = threading.Barrier(200)
    assert len(set(await asyncio.gather(*(begin_in_thread(barrier.wait) for _ in range(200))))) == 200


async def test_a_thread_is_idle_when_its_result_is_there(workers: Workers) -> None:
    busy = threading.Event()
    work = begin_in_thread(busy.wait)
    [thread] = workers()
    assert thread.name == "blocking-work"
    busy.set()
    await work
    assert thread.name == "blocking-work, idle"


async def test_threads_without_work_end_and_new_ones_come(workers: Workers) -> None:
    barrier = threading.Barrier(20)
    await asyncio.gather(*(begin_in_thread(barrier.wait) for _ in range(20)))
    for thread in workers():
        await asyncio.to_thread(thread.join, 60)
        assert not thread.is_alive()
    assert await begin_in_thread(lambda: 5) == 5


async def test_work_that_comes_as_threads_end_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever is first, a thread that ends is not given any."""
    monkeypatch.setattr(work_threads, "_KEPT", 0.001)
    for number in range(300):
        assert await asyncio.wait_for(begin_in_thread(partial(int, number)), 60) == number
        await asyncio.sleep(number % 3 / 1000)


async def test_work_that_nobody_waits_for_any_more_harms_nobody() -> None:
    release = threading.Event()
    work = begin_in_thread(release.wait)
    work.cancel()
    release.set()
    assert await begin_in_thread(lambda: 5) == 5


def test_a_loop_that_has_been_closed_harms_nobody() -> None:
    release = threading.Event()

    async def begin() -> None:
        begin_in_thread(release.wait)

    asyncio.run(begin())
    release.set()

    async def five() -> int:
        return await begin_in_thread(lambda: 5)

    assert asyncio.run(five()) == 5


def test_a_copy_of_the_process_has_threads_of_its_own() -> None:
    async def five() -> int:
        return await asyncio.wait_for(begin_in_thread(lambda: 5), 60)

    assert asyncio.run(five()) == 5
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):  # what a test would report, the parent does
            status = 0 if asyncio.run(five()) == 5 else 1
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
