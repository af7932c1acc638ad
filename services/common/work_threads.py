"""Blocking work in threads, begun at once however much of it there is.

Jobs wait for one another's streams, and in a pool of limited size the one waited for might never get its turn: so there
is a thread for each. A thread that has done its job is kept for a while, since to make a new one, and to wait for its
end, takes five times as long as to wake one up.
"""

import asyncio
import contextlib
import contextvars
import os
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

__all__ = ["begin_in_thread"]

T = TypeVar("T")

_WORKING: Final = "blocking-work"
_IDLE: Final = "blocking-work, idle"
"""Names of a thread."""
_KEPT: Final = 10.0
"""Seconds that a thread without work is kept."""

_lock = threading.Lock()
_idle: list["_Worker"] = []
"""Threads without work, the last one busy on top."""


def begin_in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Begin blocking work, with the caller's context variables; return the future of its result.

    The work goes on when the future is cancelled.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def job() -> Callable[[], None]:
        try:
            outcome = partial(_settle, future, future.set_result, context.run(work))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to who waits
            outcome = partial(_settle, future, future.set_exception, error)

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(outcome)

        return tell

    with _lock:
        worker = _idle.pop() if _idle else None
    (worker or _Worker()).give(job)
    return future


def _settle(future: asyncio.Future[T], settle: Callable[..., None], value: object) -> None:
    if not future.done():
        settle(value)


class _Worker:
    """A thread that does one job after another."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], Callable[[], None]]] = queue.SimpleQueue()
        # It does not keep the program from ending: whoever waits for work does.
        self._thread = threading.Thread(target=self._serve, name=_WORKING, daemon=True)
        self._thread.start()

    def give(self, job: Callable[[], Callable[[], None]]) -> None:
        """Have it do a job, which returns what tells the result; it is idle by then."""
        self._jobs.put(job)

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            self._thread.name = _WORKING
            tell = job()
            # What the job has used goes now, not with the next one.
            del job
            self._thread.name = _IDLE
            with _lock:
                _idle.append(self)
            tell()
            del tell

    def _next(self) -> Callable[[], Callable[[], None]] | None:
        try:
            return self._jobs.get(timeout=_KEPT)
        except queue.Empty:
            with _lock:
                if self in _idle:
                    _idle.remove(self)
                    return None
        # It has just been taken.
        return self._jobs.get()


def _forget_threads() -> None:
    _idle.clear()


# The threads of a process are not there in a copy of it.
os.register_at_fork(after_in_child=_forget_threads)
