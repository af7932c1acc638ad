"""The engine's side of the plugin protocol, byte for byte: Go's HTTP client on a unix socket."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

__all__ = ["Answer", "EngineClient"]

_HEADERS = (
    "Host: plugin.moby.localhost\r\n"
    "User-Agent: Go-http-client/1.1\r\n"
    "Accept: application/vnd.docker.plugins.v1.2+json\r\n"
    "Accept-Encoding: gzip\r\n"
)


@dataclass(frozen=True)
class Answer:
    """An answer, as far as it came."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool
    """Whether its end was marked: by its length or by the closing chunk."""

    @property
    def document(self) -> Any:  # noqa: ANN401 - a JSON document
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The text of an error, as the engine shows it."""
        assert self.whole
        return str(self.document["Err"])


class EngineClient:
    """One connection, kept alive between calls."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def connected(cls, socket: Path) -> AsyncIterator[Self]:
        """Connect."""
        reader, writer = await asyncio.open_unix_connection(str(socket))
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()

    async def call(self, path: str, body: object | bytes | None = None, *, headers: str = "") -> Answer:
        """Send a JSON document, bytes as they are, or no body at all, and read the answer."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.send(
            f"POST {path} HTTP/1.1\r\n{_HEADERS}{headers}Content-Length: {len(content)}\r\n\r\n".encode() + content
        )
        return await self.answer()

    async def stream(self, path: str, *pieces: bytes, end: bool = True) -> None:
        """Send a body in chunks, with or without the closing one."""
        await self.send(f"POST {path} HTTP/1.1\r\n{_HEADERS}Transfer-Encoding: chunked\r\n\r\n".encode())
        for piece in pieces:
            await self.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        if end:
            await self.send(b"0\r\n\r\n")

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read the head of an answer: its status, and its headers by lower-case name."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:] if line)}
        return int(lines[0].split()[1]), headers

    async def answer(self) -> Answer:
        """Read an answer, of which a part may be missing."""
        status, headers = await self.head()
        if headers.get("transfer-encoding") == "chunked":
            body, whole = await self._chunks()
            return Answer(status, headers, body, whole)
        length = int(headers["content-length"])
        try:
            return Answer(status, headers, await self.reader.readexactly(length), whole=True)
        except asyncio.IncompleteReadError as error:
            return Answer(status, headers, error.partial, whole=False)

    async def _chunks(self) -> tuple[bytes, bool]:
        pieces = []
        try:
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                pieces.append(await self.reader.readexactly(size))
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        except (asyncio.IncompleteReadError, ConnectionError):
            return b"".join(pieces), False
        return b"".join(pieces), True
