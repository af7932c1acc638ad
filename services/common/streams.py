"""Blocking work in threads, and streams between such work and the event loop.

Packing, unpacking, hashing and compressing block; HTTP bodies come and go on the event loop. A stream between the two
has a bounded buffer, so that the faster side waits; an error or a cancellation on one side ends the other; and no
helper returns before its work has ended.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Final, TypeVar

from services.common.errors import SuiteError
from services.common.work_threads import begin_in_thread

__all__ = [
    "BlockingReader",
    "StreamAbortedError",
    "beside",
    "run_in_thread",
    "run_reader",
]

T = TypeVar("T")

_FULL: Final = 4 << 20
"""Bytes in a stream's buffer at which the writing side waits."""

_LOW: Final = 1 << 20
"""Bytes at which it goes on: well below, so that the sides change turns seldom."""


class StreamAbortedError(SuiteError):
    """The other side of a stream has gone; raised in the thread, to end its work."""


class _Buffer:
    """Pieces on their way; the part that both directions share."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.pieces: deque[bytes] = deque()
        self.size = 0
        self.ended = False
        self.aborted: BaseException | None = None
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None

    def abort(self, cause: BaseException) -> None:
        """Make the thread's next call fail."""
        with self.condition:
            if self.aborted is None:
                self.aborted = cause
            self.pieces.clear()
            self.condition.notify_all()

    def check(self) -> None:
        if self.aborted is not None:
            raise StreamAbortedError("the other side of the stream has ended") from self.aborted

    def new_waiter(self) -> asyncio.Future[None]:
        """Return what the loop's side waits for; to be called with the lock held."""
        self._waiter = self._loop.create_future()
        return self._waiter

    def wake_loop(self) -> None:
        """Let the loop's side go on; to be called in the thread, with the lock held."""
        if self._waiter is not None:
            self._loop.call_soon_threadsafe(_release, self._waiter)
            self._waiter = None


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class BlockingReader:
    """The thread's end of a stream that the event loop feeds."""

    def __init__(self, buffer: _Buffer) -> None:
        self._buffer = buffer
        self._piece = memoryview(b"")

    def readinto(self, target: memoryview, /) -> int:
        """Read at least one byte into the target and return the number, 0 at the end.

        Raises
        ------
        StreamAbortedError
            The loop's side failed or was cancelled.
        """
        filled = 0
        while filled < len(target):
            if not self._piece:
                # Once there is something, only what is there already: bodies come in many small pieces, and what is
                # done for each call costs more than to move them.
                self._piece = memoryview(self._next() if not filled else self._take())
                if not self._piece:
                    break
            count = min(len(self._piece), len(target) - filled)
            target[filled : filled + count] = self._piece[:count]
            self._piece = self._piece[count:]
            filled += count
        return filled

    def read(self, most: int, /) -> bytes:
        """Return at least one and at most `most` bytes, none at the end."""
        if not self._piece:
            self._piece = memoryview(self._next())
        content = bytes(self._piece[:most])
        self._piece = self._piece[most:]
        return content

    def _next(self) -> bytes:
        buffer = self._buffer
        with buffer.condition:
            buffer.check()
            while not buffer.pieces:
                if buffer.ended:
                    return b""
                buffer.condition.wait()
                buffer.check()
            return self._pop()

    def _take(self) -> bytes:
        with self._buffer.condition:
            self._buffer.check()
            return self._pop() if self._buffer.pieces else b""

    def _pop(self) -> bytes:
        buffer = self._buffer
        piece = buffer.pieces.popleft()
        buffer.size -= len(piece)
        if buffer.size <= _LOW:
            buffer.wake_loop()
        return piece


async def run_in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a thread of its own and return its result.

    Such work cannot be interrupted: a cancellation takes effect when it has ended.
    """
    thread = begin_in_thread(work)
    await _ended(thread)
    return thread.result()


async def run_reader(chunks: AsyncIterable[bytes], work: Callable[[BlockingReader], T]) -> T:
    """Run blocking work that reads a stream which arrives on the event loop, and return its result.

    Parameters
    ----------
    chunks
        The stream, such as the body of a request. What the work does not read is not asked for.
    work
        Called in a thread of its own.

    Raises
    ------
    Exception
        What the chunks raised, else what the work raised.
    """
    buffer = _Buffer()
    feeder = asyncio.create_task(_feed(chunks, buffer))
    thread = begin_in_thread(lambda: work(BlockingReader(buffer)))
    try:
        await asyncio.wait((thread,))
    finally:
        buffer.abort(StreamAbortedError("cancelled"))
        feeder.cancel()
        await _ended(thread, feeder)
    if not feeder.cancelled() and (failure := feeder.exception()) is not None:
        raise failure
    return thread.result()


async def _feed(chunks: AsyncIterable[bytes], buffer: _Buffer) -> None:
    try:
        async for chunk in chunks:
            with buffer.condition:
                if chunk:
                    buffer.pieces.append(chunk)
                    buffer.size += len(chunk)
                    buffer.condition.notify()
                waiter = buffer.new_waiter() if buffer.size >= _FULL else None
            if waiter is not None:
                await waiter
    except BaseException as error:
        buffer.abort(error)
        raise
    with buffer.condition:
        buffer.ended = True
        buffer.condition.notify()


@contextlib.asynccontextmanager
async def beside(work: Callable[[], T], *, abort: Callable[[], None]) -> AsyncIterator[asyncio.Future[T]]:
    """Run blocking work beside a context, which is left when the work has ended.

    Parameters
    ----------
    work
        Called in a thread of its own.
    abort
        Makes the work fail soon; called where the context is left and it has not ended yet.

    Yields
    ------
    asyncio.Future
        The future of its result.
    """
    thread = begin_in_thread(work)
    try:
        yield thread
    finally:
        if not thread.done():
            abort()
        await _ended(thread)


async def _ended(*pending: asyncio.Future[Any]) -> None:
    """Wait until threads and tasks have ended; a cancellation meanwhile takes effect afterwards."""
    cancelled: asyncio.CancelledError | None = None
    while waiting := [future for future in pending if not future.done()]:
        try:
            await asyncio.wait(waiting)
        except asyncio.CancelledError as error:
            cancelled = error
    for future in pending:
        if not future.cancelled():
            future.exception()  # whoever asked for the work gets it, or has an error of its own to raise
    if cancelled is not None:
        raise cancelled
