"""Jobs in one thread: in turn, and answered when what they have changed is on the disk."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from services.common.serial import SerialThread


@pytest.fixture
def thread() -> Iterator[SerialThread]:
    thread = SerialThread("jobs")
    yield thread
    thread.close()


async def test_jobs_of_one_moment_are_finished_once(thread: SerialThread) -> None:
    events: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def hold_up() -> None:
        begun.set()
        go_on.wait()

    await thread.run(lambda: thread.finish_by(lambda: events.append("finished")))
    events.clear()
    first = asyncio.ensure_future(thread.run(hold_up))
    await asyncio.to_thread(begun.wait)
    jobs = [asyncio.ensure_future(thread.run(lambda name=name: events.append(name))) for name in "abc"]  # type: ignore[misc]
    await asyncio.sleep(0)
    assert events == []
    go_on.set()
    await asyncio.gather(first, *jobs)
    assert events == ["finished", "a", "b", "c", "finished"]


async def test_nobody_is_told_of_what_is_not_on_the_disk(thread: SerialThread) -> None:
    def fail() -> None:
        raise OSError("the disk has failed")

    await thread.run(lambda: None)
    with pytest.raises(OSError, match="the disk has failed"):
        await thread.run(lambda: thread.finish_by(fail))
    with pytest.raises(OSError, match="the disk has failed"):
        await thread.run(lambda: "done")


async def test_a_job_that_fails_fails_alone(thread: SerialThread) -> None:
    begin = threading.Event()

    def fail() -> None:
        raise ValueError("no")

    waiting = [asyncio.ensure_future(thread.run(job)) for job in (begin.wait, fail, lambda: 1)]
    await asyncio.sleep(0)
    begin.set()
    first, failed, last = await asyncio.gather(*waiting, return_exceptions=True)
    assert (first, str(failed), last) == (True, "no", 1)


async def test_a_caller_who_is_cancelled_goes_on_after_the_job(thread: SerialThread) -> None:
    go_on, done = threading.Event(), []
    first = asyncio.ensure_future(thread.run(go_on.wait))
    given_up = asyncio.ensure_future(thread.run(lambda: done.append("given up")))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.sleep(0)
    assert not given_up.done()
    go_on.set()
    await first
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert done == ["given up"]


async def test_a_closed_thread_does_nothing() -> None:
    thread = SerialThread("jobs")
    thread.close()
    with pytest.raises(RuntimeError, match="the program ends"):
        await thread.run(lambda: None)


async def test_the_last_job_ends_before_the_thread() -> None:
    thread, done = SerialThread("jobs"), []
    job = asyncio.ensure_future(thread.run(lambda: done.append("last")))
    await asyncio.sleep(0)
    thread.close()
    assert done == ["last"]
    await job
