"""Blocking work in threads, and streams between such work and the event loop.

Packing, unpacking, hashing and compressing block; HTTP bodies come and go on the event loop. A stream between the two
has a bounded buffer, so that the faster side waits; an error or a cancellation on one side ends the other; and no
helper returns before its thread has ended.

Every job gets a thread of its own rather than one of a pool: jobs wait for one another's streams, and in a pool the one
waited for might never get its turn.
"""

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Final, Generic, TypeVar

from services.common.errors import SuiteError

__all__ = [
    "BlockingReader",
    "BlockingWriter",
    "StreamAbortedError",
    "WrittenPieces",
    "iterate_writer",
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

    def wake(self) -> None:
        """Let the loop's side go on; to be called on the loop."""
        with self.condition:
            if self._waiter is not None:
                _release(self._waiter)
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
        if not self._piece:
            self._piece = memoryview(self._next())
        count = min(len(self._piece), len(target))
        target[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

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
            piece = buffer.pieces.popleft()
            buffer.size -= len(piece)
            if buffer.size <= _LOW:
                buffer.wake_loop()
            return piece


class BlockingWriter:
    """The thread's end of a stream that the event loop reads."""

    def __init__(self, buffer: _Buffer) -> None:
        self._buffer = buffer

    def write(self, data: bytes, /) -> int:
        """Hand on data, which must not change afterwards, and wait while too much is on its way.

        Raises
        ------
        StreamAbortedError
            The loop's side has ended.
        """
        buffer = self._buffer
        with buffer.condition:
            buffer.check()
            if data:
                buffer.pieces.append(data)
                buffer.size += len(data)
                buffer.wake_loop()
            while buffer.size >= _FULL:
                buffer.condition.wait()
                buffer.check()
        return len(data)


class WrittenPieces(Generic[T]):
    """The loop's end of a stream that a thread writes: an asynchronous iterator of its pieces.

    An error of the thread's work is raised by the iteration, after the pieces that came before it.
    """

    def __init__(self, buffer: _Buffer, work: asyncio.Future[T]) -> None:
        self._buffer = buffer
        self._work = work

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        buffer = self._buffer
        while True:
            with buffer.condition:
                if buffer.pieces:
                    piece = buffer.pieces.popleft()
                    buffer.size -= len(piece)
                    if buffer.size <= _LOW:
                        buffer.condition.notify()
                    return piece
                if self._work.done():
                    break
                waiter = buffer.new_waiter()
            await waiter
        self._work.result()
        raise StopAsyncIteration

    def result(self) -> T:
        """Return what the thread's work returned; to be called when the iteration has ended."""
        return self._work.result()


async def run_in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a thread of its own and return its result.

    Such work cannot be interrupted: a cancellation takes effect when it has ended.
    """
    thread = _start(work)
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
    thread = _start(lambda: work(BlockingReader(buffer)))
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
async def iterate_writer(work: Callable[[BlockingWriter], T]) -> AsyncIterator[WrittenPieces[T]]:
    """Run blocking work that writes a stream, and read the stream on the event loop.

    Leaving the context early makes the work's next write fail; the context is left when its thread has ended.

    Parameters
    ----------
    work
        Called in a thread of its own.
    """
    buffer = _Buffer()
    thread = _start(lambda: work(BlockingWriter(buffer)))
    thread.add_done_callback(lambda _: buffer.wake())
    try:
        yield WrittenPieces(buffer, thread)
    finally:
        buffer.abort(StreamAbortedError("nobody reads on"))
        await _ended(thread)


def _start(work: Callable[[], T]) -> asyncio.Future[T]:
    """Run work in a new thread, with the caller's context variables; return the future of its result."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            result = context.run(work)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to who waits
            loop.call_soon_threadsafe(future.set_exception, error)
        else:
            loop.call_soon_threadsafe(future.set_result, result)

    thread = threading.Thread(target=run, name="blocking-work")
    # When the result is there, nothing is left for the thread but to end.
    future.add_done_callback(lambda _: thread.join())
    thread.start()
    return future


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
