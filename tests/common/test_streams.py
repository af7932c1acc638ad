"""Streams between the event loop and threads: all bytes, bounded buffers, and no thread that outlives its work."""

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from services.common.streams import (
    BlockingReader,
    StreamAbortedError,
    beside,
    run_in_thread,
    run_reader,
)

FULL = 4 << 20
"""Size of a stream's buffer, in bytes."""


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert [thread for thread in threading.enumerate() if thread.name == "blocking-work" and thread not in before] == []


async def pieces(*content: bytes) -> AsyncIterator[bytes]:
    for piece in content:
        yield piece


async def endless(counter: list[int]) -> AsyncIterator[bytes]:
    piece = bytes(64 << 10)
    while True:
        counter[0] += len(piece)
        yield piece


def read_all(reader: BlockingReader) -> bytes:
    parts = []
    while part := reader.read(1000):
        parts.append(part)
    return b"".join(parts)


class TestRunInThread:
    async def test_returns_and_raises(self) -> None:
        assert await run_in_thread(lambda: 5) == 5
        with pytest.raises(ZeroDivisionError):
            await run_in_thread(lambda: 1 // 0)

    async def test_keeps_context_variables(self) -> None:
        variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
        variable.set(7)
        assert await run_in_thread(variable.get) == 7

    async def test_is_cancelled_when_the_work_has_ended(self) -> None:
        started, release, ended = threading.Event(), threading.Event(), threading.Event()

        def work() -> None:
            started.set()
            release.wait()
            ended.set()

        task = asyncio.create_task(run_in_thread(work))
        await asyncio.to_thread(started.wait)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    async def test_many_at_a_time_wait_for_one_another(self) -> None:
        barrier = threading.Barrier(100)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(100):
                tasks.create_task(run_in_thread(barrier.wait))


class TestRunReader:
    async def test_passes_every_byte(self) -> None:
        content = [b"", b"a", b"bc" * 700, b"", b"d" * 3000, b""]
        assert await run_reader(pieces(*content), read_all) == b"".join(content)

    async def test_fills_what_it_is_given(self) -> None:
        def work(reader: BlockingReader) -> list[int]:
            buffer = memoryview(bytearray(5))
            first = reader.readinto(buffer)
            # What is there already comes with it, be it in many pieces.
            all_there.wait()
            return [first, *(reader.readinto(buffer) for _ in range(4))]

        all_there = threading.Event()

        async def three() -> AsyncIterator[bytes]:
            yield b"1234567"
            yield b"8"
            yield b"9"
            all_there.set()

        assert await run_reader(three(), work) == [5, 4, 0, 0, 0]

    async def test_nothing(self) -> None:
        assert await run_reader(pieces(), read_all) == b""

    async def test_the_faster_side_waits(self) -> None:
        produced = [0]
        most = 0

        def work(reader: BlockingReader) -> None:
            nonlocal most
            buffer = memoryview(bytearray(1 << 20))
            consumed = 0
            while consumed < 64 << 20:
                consumed += reader.readinto(buffer)
                most = max(most, produced[0] - consumed)

        await run_reader(endless(produced), work)
        assert most <= FULL + (128 << 10)

    async def test_work_that_ends_early_leaves_the_rest(self) -> None:
        produced = [0]
        assert await run_reader(endless(produced), lambda reader: reader.read(3)) == b"\0\0\0"
        assert produced[0] <= FULL + (128 << 10)

    async def test_an_error_of_the_work(self) -> None:
        def work(reader: BlockingReader) -> None:
            reader.read(10)
            raise ValueError("bad layer")

        with pytest.raises(ValueError, match="bad layer"):
            await run_reader(endless([0]), work)

    async def test_an_error_of_the_chunks_ends_the_work(self) -> None:
        async def broken() -> AsyncIterator[bytes]:
            yield b"half"
            raise ConnectionResetError("gone")

        with pytest.raises(ConnectionResetError, match="gone"):
            await run_reader(broken(), read_all)

    async def test_cancellation_ends_work_that_waits(self) -> None:
        waiting = threading.Event()
        seen: list[BaseException] = []

        async def silent() -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.Event().wait()

        def work(reader: BlockingReader) -> None:
            reader.read(1)
            waiting.set()
            try:
                reader.read(1)
            except StreamAbortedError as error:
                seen.append(error)
                raise

        task = asyncio.create_task(run_reader(silent(), work))
        await asyncio.to_thread(waiting.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(seen) == 1

    async def test_closes_no_generator_that_is_the_callers(self) -> None:
        chunks = pieces(b"a", b"b")
        assert await run_reader(chunks, lambda reader: reader.read(1)) == b"a"
        await chunks.aclose()  # type: ignore[attr-defined]


class TestBeside:
    async def test_gives_the_works_result(self) -> None:
        async with beside(lambda: 5, abort=_fail) as work:
            assert await work == 5

    async def test_the_works_error_is_whose_asks_for_it(self) -> None:
        async with beside(lambda: 1 // 0, abort=_fail) as work:
            with pytest.raises(ZeroDivisionError):
                await work

    async def test_leaving_early_aborts_the_work_and_waits_for_its_end(self) -> None:
        release, ended = threading.Event(), threading.Event()

        def work() -> None:
            release.wait()
            ended.set()

        async with beside(work, abort=release.set):
            pass
        assert ended.is_set()

    async def test_an_error_in_the_context_is_the_one_that_counts(self) -> None:
        release = threading.Event()

        async def consume() -> None:
            async with beside(lambda: release.wait() and 1 // 0, abort=release.set):
                raise ConnectionResetError("the client has gone")

        with pytest.raises(ConnectionResetError, match="the client has gone"):
            await consume()

    async def test_cancellation_takes_effect_when_the_work_has_ended(self) -> None:
        started, aborted, release = threading.Event(), threading.Event(), threading.Event()

        def work() -> None:
            started.set()
            release.wait()

        async def consume() -> None:
            async with beside(work, abort=aborted.set) as running:
                await asyncio.wait((running,))

        task = asyncio.create_task(consume())
        await asyncio.to_thread(started.wait)
        task.cancel()
        await asyncio.to_thread(aborted.wait)
        assert not task.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task


def _fail() -> None:
    raise AssertionError("aborted though it has ended")


async def test_a_stream_costs_little() -> None:
    """A gigabyte passes in pieces of HTTP's size in well under the time that a disk would take."""
    size, piece = 1 << 30, bytes(64 << 10)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(size // len(piece)):
            yield piece

    def drain(reader: BlockingReader) -> int:
        buffer, total = memoryview(bytearray(1 << 20)), 0
        while count := reader.readinto(buffer):
            total += count
        return total

    started = time.process_time()
    assert await run_reader(chunks(), drain) == size
    assert time.process_time() - started < 20
