"""What generates notifications tells how long each took from when it was due, and does not wait for the others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from harness.bench.event_load import EventLoad, LoadError, announced, post_events
from services.publisher.notification.parse import parse_notification

_RATE = 200
_COUNT = 100
_STALL = 0.6
"""Seconds: more than the notifications take to fall due."""

_Answer = Callable[[bytes], Awaitable[bytes]]


@asynccontextmanager
async def _server(answer: _Answer) -> AsyncIterator[EventLoad]:
    """Answer notifications by a line; give what is to be sent there."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(int(head.rpartition(b"Content-Length: ")[2]))
                writer.write(b"HTTP/1.1 " + await answer(body) + b"\r\nX: y\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield EventLoad(
            addresses=[server.sockets[0].getsockname()],
            token="token",
            bucket="layers",
            name="test",
            rate=_RATE,
            count=_COUNT,
        )


async def test_a_stall_counts_against_all_that_fell_due_meanwhile() -> None:
    taken: list[str] = []
    over = asyncio.Event()

    async def answer(body: bytes) -> bytes:
        if not taken:
            asyncio.get_running_loop().call_later(_STALL, over.set)
        taken.extend(event.digest for event in parse_notification(body, bucket="layers"))
        await over.wait()
        return b"204 No Content"

    async with _server(answer) as load:
        result = await post_events(load)
    assert sorted(taken) == sorted(announced(load))
    for number, latency in enumerate(result.latencies):
        assert latency > _STALL - number / _RATE - 0.01
    assert max(result.delays) > 0.1  # no connection was free


async def test_a_notification_that_is_not_taken_ends_it() -> None:
    async def answer(_body: bytes) -> bytes:
        return b"503 Service Unavailable"

    async with _server(answer) as load:
        with pytest.raises(LoadError, match="503 Service"):
            await post_events(load)
