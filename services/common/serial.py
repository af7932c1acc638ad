"""Blocking work on a program's state: off the event loop, one job at a time."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from services.common.threads import to_end

__all__ = ["SerialThread"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class SerialThread:
    """One thread, which does what it is given in turn. Each job is short: others wait for it.

    Jobs that wait at the same time are done one after the other, and then answered together: what they have changed is
    brought to the disk once for all of them, and nobody is told of anything that is not there yet.

    Parameters
    ----------
    name
        Name of the thread, for people.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._finish: Callable[[], None] = _nothing
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def finish_by(self, finish: Callable[[], None]) -> None:
        """Set what is done in the thread after the jobs of one moment, before any of them is answered.

        Where it raises, that is what all of them have come to.
        """
        self._finish = finish

    async def run(self, job: Callable[[], _T]) -> _T:
        """Run a job. If the caller is cancelled, it goes on when the job has ended, and can say what becomes of it.

        Raises
        ------
        RuntimeError
            The thread has been closed.
        """
        if self._closed:
            raise RuntimeError("nothing is done here any more: the program ends")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._jobs.put(_Job(job, future, loop))
        return await to_end(future)

    def close(self) -> None:
        """Wait until the last job has ended."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while True:
            jobs = [self._jobs.get()]
            while not self._jobs.empty():
                jobs.append(self._jobs.get())
            self._do([job for job in jobs if job is not None])
            if None in jobs:
                return

    def _do(self, jobs: Sequence[_Job]) -> None:
        outcomes = [(job, _outcome(job)) for job in jobs]
        try:
            self._finish()
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to those who wait
            outcomes = [(job, partial(_fail, job.future, error)) for job, _ in outcomes]
        for loop in {job.loop for job, _ in outcomes}:
            answers = [answer for job, answer in outcomes if job.loop is loop]
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_answer, answers)


def _nothing() -> None:
    """Finish nothing: no job has changed anything."""


def _outcome(job: _Job) -> Callable[[], None]:
    """Do a job, and return what tells who waits for it of what it came to."""
    try:
        return partial(_succeed, job.future, job.work())
    except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to who waits
        return partial(_fail, job.future, error)


def _answer(answers: Sequence[Callable[[], None]]) -> None:
    for answer in answers:
        answer()


def _succeed(future: asyncio.Future[_T], result: _T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
