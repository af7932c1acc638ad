"""A proxy in front of an S3 server that does to chosen requests what networks and busy servers do.

Every request has a connection of its own, so that what is done to one does nothing to the next.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from tests.support.connections import Connections

__all__ = ["Answer", "Effect", "Fault", "FaultProxy", "cut", "damage", "stall", "unharmed"]

_CHUNK: Final = 64 << 10

Effect = Callable[[int, bytes], Awaitable[bytes]]
"""Takes the position of some bytes in their direction and the bytes, and returns what is passed on."""


async def unharmed(_position: int, data: bytes) -> bytes:
    """Pass everything on."""
    return data


def cut(after: int) -> Effect:
    """Break the connection after so many bytes."""

    async def effect(position: int, data: bytes) -> bytes:
        if position + len(data) > after:
            raise ConnectionResetError
        return data

    return effect


def stall(after: int) -> Effect:
    """Pass nothing on after so many bytes, and keep the connection."""

    async def effect(position: int, data: bytes) -> bytes:
        if position + len(data) > after:
            await asyncio.Event().wait()
        return data

    return effect


def damage(at: int) -> Effect:
    """Flip the bits of one byte."""

    async def effect(position: int, data: bytes) -> bytes:
        if position <= at < position + len(data):
            changed = bytearray(data)
            changed[at - position] ^= 0xFF
            return bytes(changed)
        return data

    return effect


@dataclass(frozen=True, slots=True)
class Answer:
    """What the proxy answers by itself."""

    status: int
    code: str


@dataclass(slots=True)
class Fault:
    """What happens to the next requests of a kind."""

    matches: str
    """Regular expression that the request line holds, such as `^PUT ` or `partNumber=2`."""
    times: int = 1
    """How many requests it happens to."""
    answer: Answer | None = None
    """An answer in place of the server's."""
    head: Effect = field(default=unharmed)
    """What happens to the head of the request on its way to the server."""
    request: Effect = field(default=unharmed)
    """What happens to the body on its way to the server."""
    response: Effect = field(default=unharmed)
    """What happens to the answer, its head included."""


class FaultProxy:
    """The proxy; `requests` lists the request lines that it has seen."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._connections = Connections(self._serve)
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.endpoint = ""

    @classmethod
    @asynccontextmanager
    async def before(cls, upstream: str, *faults: Fault) -> "AsyncIterator[FaultProxy]":
        """Run a proxy in front of a server."""
        self = cls(upstream)
        self.faults = list(faults)
        async with self._connections.taken() as port:
            self.endpoint = f"http://127.0.0.1:{port}"
            yield self

    def seen(self, expression: str) -> int:
        """How many request lines hold this regular expression."""
        return sum(bool(re.search(expression, line)) for line in self.requests)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._forward(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # one side has gone, or was made to seem so: the other is cut off
        finally:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, rest = head.split(b"\r\n", 1)
        self.requests.append(line.decode())
        fault = self._fault(line.decode())
        if fault.answer is not None:
            await _answer(fault.answer, writer)
            return
        rest = await fault.head(0, rest)
        server_reader, server_writer = await asyncio.open_connection(*self._upstream)
        try:
            server_writer.write(line + b"\r\nConnection: close\r\n" + rest)
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(_pump(reader, server_writer, fault.request))
                await _pump(server_reader, writer, fault.response)
                sending.cancel()
        except BaseExceptionGroup as failures:
            if failures.split(OSError)[1] is not None:
                raise
            raise ConnectionAbortedError from None
        finally:
            server_writer.transport.abort()

    def _fault(self, line: str) -> Fault:
        for fault in self.faults:
            if fault.times and re.search(fault.matches, line):
                fault.times -= 1
                return fault
        return Fault("")


async def _answer(answer: Answer, writer: asyncio.StreamWriter) -> None:
    body = f"<Error><Code>{answer.code}</Code><Message>made up</Message></Error>"
    head = f"HTTP/1.1 {answer.status} Fault\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n{body}".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, effect: Effect) -> None:
    position = 0
    while data := await reader.read(_CHUNK):
        writer.write(await effect(position, data))
        await writer.drain()
        position += len(data)
    writer.write_eof()
