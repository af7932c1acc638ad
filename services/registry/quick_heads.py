"""The one request that is sent tens of thousands of times an hour, HEAD of a manifest, by the shortest way.

A general client of HTTP spends most of its time on what such a request has no use for: a body, redirects, cookies,
pools of many servers. Here a connection writes a few lines and reads a few. It knows success only: whatever is not a
plain 200 with a digest in it is no answer, and the ordinary way asks once more and says what it means. So nothing is
decided here but that an image has a digest.
"""

import asyncio
import re
import ssl
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from services.common.digest import Digest
from services.registry.reference import ImageReference

__all__ = ["Busy", "QuickHeads"]

_HEAD_LIMIT: Final = 32 << 10
"""Largest head of an answer, in bytes."""
_IDLE: Final = 32
"""Most connections to a registry that are kept for the next request."""
_SUCCESS: Final = re.compile(rb"HTTP/1\.1 200[ \r]")
_DIGEST: Final = re.compile(rb"\r\ndocker-content-digest:[ \t]*sha256:([0-9a-f]{64})[ \t]*\r\n", re.IGNORECASE)
_TYPE: Final = re.compile(rb"\r\ncontent-type:[ \t]*([!-:<-~]+)[ \t]*[;\r]", re.IGNORECASE)
_BUSY: Final = re.compile(rb"HTTP/1\.1 (429|503)[ \r]")
_RETRY_AFTER: Final = re.compile(rb"\r\nretry-after:[ \t]*([ -~]+)\r\n", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection:[^\r\n]*close", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Busy:
    """An answer of a registry that has too much to do."""

    status: int
    retry_after: str | None


class _Connection(asyncio.Protocol):
    """A connection that takes one request after another."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._waiting: asyncio.Future[bytes] | None = None
        self.usable = True
        """Whether another request may be sent."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what requests are written to."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if self._waiting is None or self._waiting.done() or (end < 0 and len(self._buffer) > _HEAD_LIMIT):
            self.close()  # nobody has asked for this
        elif end >= 0:
            head, rest = self._buffer[: end + 4], self._buffer[end + 4 :]
            self._buffer = b""
            self._waiting.set_result(head)
            if rest:
                self.close()  # HEAD has no body

    def connection_lost(self, _error: Exception | None) -> None:
        """Tell who waits."""
        self.close()

    def close(self) -> None:
        """Use it no more; who waits gets an answer that is none."""
        self.usable = False
        if self._transport is not None:
            self._transport.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(b"")

    async def ask(self, request: bytes) -> bytes:
        """Send a request; return the head of its answer, empty where there is none."""
        if self._transport is None or not self.usable:
            return b""
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._waiting
        finally:
            if not self._waiting.done() or self._waiting.cancelled():
                self.close()
            self._waiting = None


class QuickHeads:
    """Asks for digests. Its connections are closed by `close`.

    Parameters
    ----------
    tls
        Verifies registries.
    patience
        Longest wait for a connection, and for an answer, in seconds.
    user_agent
        Who asks.
    """

    def __init__(self, *, tls: ssl.SSLContext, patience: float, user_agent: str) -> None:
        self._tls = tls
        self._patience = patience
        self._agent = user_agent
        self._idle: defaultdict[tuple[str, int | None, str], list[_Connection]] = defaultdict(list)

    def close(self) -> None:
        """Close what is open."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    async def head(
        self, reference: ImageReference, *, accept: str, proof: str | None
    ) -> tuple[Digest, str] | Busy | None:
        """Return digest and media type of what a reference names, by one request; None where there is no such answer.

        Parameters
        ----------
        reference
            The image, with the scheme that its registry is spoken to with.
        accept
            Media types that are understood.
        proof
            The `Authorization` that the registry accepted before.
        """
        lines = (
            f"HEAD /v2/{reference.repository}/manifests/{reference.version} HTTP/1.1",
            f"Host: {reference.authority}",
            f"User-Agent: {self._agent}",
            f"Accept: {accept}",
            *(() if proof is None else (f"Authorization: {proof}",)),
            "\r\n",
        )
        answer = b""
        try:
            async with asyncio.timeout(self._patience):
                connection = await self._connection(reference)
                answer = await connection.ask("\r\n".join(lines).encode("latin-1"))
        except (OSError, TimeoutError, ssl.SSLError):
            return None
        if _CLOSE.search(answer):
            connection.close()
        idle = self._idle[self._server(reference)]
        if connection.usable and len(idle) < _IDLE:
            idle.append(connection)
        else:
            connection.close()
        busy = _BUSY.match(answer)
        if busy is not None:
            asked = _RETRY_AFTER.search(answer)
            return Busy(int(busy[1]), None if asked is None else asked[1].decode())
        digest, media_type = _DIGEST.search(answer), _TYPE.search(answer)
        if not _SUCCESS.match(answer) or digest is None or media_type is None:
            return None
        return Digest(digest[1].decode()), media_type[1].decode()

    def _server(self, reference: ImageReference) -> tuple[str, int | None, str]:
        return reference.host, reference.port, reference.scheme

    async def _connection(self, reference: ImageReference) -> _Connection:
        idle = self._idle[self._server(reference)]
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
        secure = reference.scheme == "https"
        _, connection = await asyncio.get_running_loop().create_connection(
            _Connection,
            reference.host.strip("[]"),
            reference.port or (443 if secure else 80),
            ssl=self._tls if secure else None,
        )
        return connection
