"""Posts notifications at a steady rate, whatever becomes of them: an open loop, in a process of its own.

Each notification is due at a time that is known before, and its latency counts from then, however late it is sent. So a
publisher that halts for a second has all notifications of that second against it, and not one of each connection
("coordinated omission"). They have MinIO's form, and come over connections that stay open.
"""

import asyncio
import hashlib
import multiprocessing
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final, cast

from tests.support.notifications import minio_event

__all__ = ["EventLoad", "LoadError", "LoadResult", "announced", "post_events"]

_CONNECTIONS: Final = 32
"""To each publisher."""
_SOON: Final = 0.5
"""Seconds from the moment at which everything is ready to the first notification."""
_PATIENCE: Final = 120.0
"""Seconds after the last notification was due, in which all must have been answered."""
_TAKEN: Final = b"HTTP/1.1 204 "
_END: Final = b"\r\n\r\n"


@dataclass(frozen=True, kw_only=True)
class EventLoad:
    """What is posted."""

    addresses: Sequence[tuple[str, int]]
    """Hosts and ports of publishers, which get one notification after the other in turns."""
    token: str
    """What they want to see."""
    bucket: str
    """Bucket of the layers that are announced."""
    name: str
    """Another name announces other layers."""
    rate: int
    """Notifications in a second, of all publishers together."""
    count: int
    """Notifications."""


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """How it went, in seconds; of each notification in the order in which they were due."""

    latencies: Sequence[float]
    """From when it was due until it was answered."""
    delays: Sequence[float]
    """From when it was due until it was sent: all connections were busy, or this generator is late."""
    processor: float
    """What the generator took of a processor, all together."""


class LoadError(Exception):
    """A notification was not taken; the text says why."""


def announced(load: EventLoad) -> list[str]:
    """Return the digests of the layers that are announced, in their order."""
    return [hashlib.sha256(f"{load.name} {number}".encode()).hexdigest() for number in range(load.count)]


async def post_events(load: EventLoad) -> LoadResult:
    """Post them from a process of its own.

    Raises
    ------
    LoadError
        One was not answered by 204.
    """
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(load, sending))
    process.start()
    sending.close()
    try:
        result: LoadResult | LoadError = await asyncio.to_thread(receiving.recv)
    except EOFError:
        raise LoadError("the generator of notifications has ended") from None
    finally:
        await asyncio.to_thread(process.join)
    if isinstance(result, LoadError):
        raise result
    return result


def _run(load: EventLoad, answer: Connection) -> None:
    try:
        result: LoadResult | LoadError = asyncio.run(_generate(load))
    except TimeoutError:
        result = LoadError(f"{_PATIENCE:.0f} s after the last notification was due, some have no answer")
    except (OSError, LoadError) as error:
        result = LoadError(str(error))
    answer.send(result)


async def _generate(load: EventLoad) -> LoadResult:
    return await _Generator(load, asyncio.get_running_loop().create_future()).run()


class _Generator:
    """Sends what is due, and keeps the times.

    Parameters
    ----------
    load
        What is sent.
    done
        Gets the end of it.
    """

    def __init__(self, load: EventLoad, done: asyncio.Future[None]) -> None:
        self._done = done
        self._load = load
        self._requests = [_request(load, digest) for digest in announced(load)]
        self._sent = [0.0] * load.count
        self._answered = [0.0] * load.count
        self._left = load.count
        self._idle: list[list[_Client]] = []
        self._waiting: list[deque[int]] = [deque() for _ in load.addresses]

    async def run(self) -> LoadResult:
        """Send all, and wait for the answers."""
        for place, (host, port) in enumerate(self._load.addresses):
            self._idle.append([await self._connected(place, host, port) for _ in range(_CONNECTIONS)])
        started = time.process_time()
        begun = time.monotonic() + _SOON
        due = [begun + number / self._load.rate for number in range(self._load.count)]
        async with asyncio.timeout(due[-1] - time.monotonic() + _PATIENCE):
            await self._send(due)
            await self._done
        return LoadResult(
            latencies=[answered - time_due for answered, time_due in zip(self._answered, due, strict=True)],
            delays=[sent - time_due for sent, time_due in zip(self._sent, due, strict=True)],
            processor=time.process_time() - started,
        )

    async def _connected(self, place: int, host: str, port: int) -> "_Client":
        _, client = await asyncio.get_running_loop().create_connection(lambda: _Client(self, place), host, port)
        return client

    async def _send(self, due: Sequence[float]) -> None:
        number = 0
        while number < len(due) and not self._done.done():
            await asyncio.sleep(max(0, due[number] - time.monotonic()))
            now = time.monotonic()
            while number < len(due) and due[number] <= now:
                place = number % len(self._load.addresses)
                if self._idle[place]:
                    self._post(self._idle[place].pop(), number)
                else:
                    self._waiting[place].append(number)
                number += 1

    def _post(self, client: "_Client", number: int) -> None:
        self._sent[number] = time.monotonic()
        client.post(number, self._requests[number])

    def answered(self, client: "_Client", number: int) -> None:
        """Note that one has been taken, and send what waits for the connection."""
        self._answered[number] = time.monotonic()
        self._left -= 1
        if not self._left:
            self._done.set_result(None)
        if self._waiting[client.place]:
            self._post(client, self._waiting[client.place].popleft())
        else:
            self._idle[client.place].append(client)

    def failed(self, reason: str) -> None:
        """End it."""
        if not self._done.done():
            self._done.set_exception(LoadError(reason))


class _Client(asyncio.Protocol):
    """One connection, with one notification at a time on it.

    Parameters
    ----------
    place
        Which publisher it leads to.
    """

    def __init__(self, generator: _Generator, place: int) -> None:
        self.place = place
        self._generator = generator
        self._number = -1
        self._read = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what it is written to by."""
        self._transport = cast("asyncio.Transport", transport)

    def post(self, number: int, request: bytes) -> None:
        """Send a notification."""
        self._number = number
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Read the answer, which has no body."""
        self._read += data
        if not self._read.startswith(_TAKEN[: len(self._read)]):
            self._generator.failed(f"a notification was answered by {self._read[:200]!r}")
        elif self._read.endswith(_END):
            self._read = b""
            self._generator.answered(self, self._number)

    def connection_lost(self, error: Exception | None) -> None:
        """End it: an answer will not come, or none to what would be sent next."""
        self._generator.failed(f"a publisher has closed a connection: {error}")


def _request(load: EventLoad, digest: str) -> bytes:
    body = minio_event(load.bucket, f"sha256/{digest}")
    head = (
        "POST /v1/events HTTP/1.1",
        "Host: publisher",
        "User-Agent: Go-http-client/1.1",
        f"Authorization: Bearer {load.token}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join(head).encode() + _END + body
