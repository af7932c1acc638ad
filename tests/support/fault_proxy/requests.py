"""A proxy in front of a server of HTTP that does to chosen requests what networks and busy servers do.

Every request has a connection of its own, so that what is done to one does nothing to the next.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from tests.support.fault_proxy.connections import Connections, ending, pass_on
from tests.support.fault_proxy.effects import Effect, unharmed
from tests.support.fault_proxy.network import WELL, Network, Passage
from tests.support.fault_proxy.stale import FirstAnswers

__all__ = ["Answer", "Fault", "FaultProxy"]


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
    stale: FirstAnswers | None = None
    """Answers that are given for ever."""


class FaultProxy:
    """The proxy; `requests` lists the request lines that it has seen."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._connections = Connections(self._serve)
        self.network = Network()
        """What happens to all requests."""
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.endpoint = ""

    @classmethod
    @asynccontextmanager
    async def before(cls, upstream: str, *faults: Fault) -> AsyncIterator[Self]:
        """Run a proxy in front of a server."""
        self = cls(upstream)
        self.faults = list(faults)
        async with self._connections.taken() as port:
            self.endpoint = f"http://127.0.0.1:{port}"
            yield self

    def seen(self, expression: str) -> int:
        """How many request lines hold this regular expression."""
        return sum(bool(re.search(expression, line)) for line in self.requests)

    async def mend(self) -> None:
        """Have no faults and a network that is well; connections that were there are lost."""
        await self._connections.abort()
        self.faults.clear()
        self.network.become(WELL)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self.network.passage() as passage:
            await passage.begin()
            head = await reader.readuntil(b"\r\n\r\n")
            line, rest = head.split(b"\r\n", 1)
            self.requests.append(line.decode())
            fault = self._fault(line.decode())
            if fault.answer is not None:
                await _answer(fault.answer, writer)
            elif fault.stale is not None and (former := fault.stale.find(line.decode())) is not None:
                writer.write(former)
                await writer.drain()
            else:
                rest = await fault.head(0, await passage.there(0, rest))
                answer = await self._forward(reader, writer, line + b"\r\nConnection: close\r\n" + rest, fault, passage)
                if fault.stale is not None:
                    fault.stale.keep(line.decode(), answer)

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        head: bytes,
        fault: Fault,
        passage: Passage,
    ) -> bytes:
        """Forward a request; return the answer if it is to be kept."""
        kept = bytearray()

        async def back(position: int, data: bytes) -> bytes:
            data = await fault.response(position, await passage.back(position, data))
            if fault.stale is not None:
                kept.extend(data)
            return data

        async def there(position: int, data: bytes) -> bytes:
            return await fault.request(position, await passage.there(position, data))

        server_reader, server_writer = await asyncio.open_connection(*self._upstream)
        with ending(server_writer):
            server_writer.write(head)
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(pass_on(reader, server_writer, there))
                await pass_on(server_reader, writer, back)
                sending.cancel()
        return bytes(kept)

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
