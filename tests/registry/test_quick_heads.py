"""The shortest way to a digest: a good answer is taken, and anything else is no answer; connections are used again."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.common.digest import Digest
from services.registry.client import RegistryClient
from services.registry.quick_heads import Busy, QuickHeads
from services.registry.reference import ImageReference
from tests.support.registries import RegistryServer, impatient
from tests.support.registry_faults import FaultyRegistry

pytestmark = pytest.mark.asyncio(loop_scope="session")

_DIGEST = Digest("a" * 64)
_TYPE = "application/vnd.oci.image.manifest.v1+json"
_GOOD = f"HTTP/1.1 200 OK\r\nContent-Type: {_TYPE}\r\nDocker-Content-Digest: sha256:{_DIGEST}\r\n\r\n".encode()


@dataclass(slots=True)
class _Server:
    """Sends the same bytes to whoever asks."""

    pieces: list[bytes]
    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                if not self.pieces:
                    break
        writer.close()


@contextlib.asynccontextmanager
async def _answering(
    *pieces: bytes,
) -> AsyncIterator[tuple[_Server, Callable[[], Coroutine[Any, Any, tuple[Digest, str] | Busy | None]]]]:
    server = _Server(list(pieces))
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    heads = QuickHeads(tls=ssl.create_default_context(), patience=0.5, user_agent="test")
    reference = ImageReference(
        host="127.0.0.1", port=server.port, repository="a/b", tag="v1", digest=None, scheme="http"
    )
    try:
        yield server, lambda: heads.head(reference, accept="*/*", proof="Bearer x")
    finally:
        heads.close()
        listening.close()


async def test_a_good_answer_is_taken_and_the_connection_used_again() -> None:
    async with _answering(_GOOD[:30], _GOOD[30:]) as (server, head):
        assert await head() == (_DIGEST, _TYPE)
        assert await head() == (_DIGEST, _TYPE)
    assert server.connections == 1
    assert server.requests[0].startswith(b"HEAD /v2/a/b/manifests/v1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nAuthorization: Bearer x\r\n" in server.requests[0]


@pytest.mark.parametrize(
    "answer",
    [
        _GOOD.replace(b"200 OK", b"404 Not Found"),
        _GOOD.replace(b"200 OK", b"401 Unauthorized"),
        _GOOD.replace(b"200 OK", b"2000 OK"),
        _GOOD.replace(b"HTTP/1.1", b"HTTP/0.9"),
        _GOOD.replace(b"sha256:aa", b"sha256:a"),
        _GOOD.replace(b"Docker-Content-Digest", b"X-Docker-Content-Digest"),
        _GOOD.replace(b"Content-Type", b"X-Type"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + _GOOD,
        b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\n",
        b"",
    ],
)
async def test_anything_else_is_no_answer(answer: bytes) -> None:
    async with _answering(*filter(None, (answer,))) as (_, head):
        assert await head() is None


async def test_a_connection_that_says_more_than_it_was_asked_is_not_used_again() -> None:
    async with _answering(_GOOD + b"a body") as (server, head):
        assert await head() == (_DIGEST, _TYPE)
        assert await head() == (_DIGEST, _TYPE)
    assert server.connections == 2
    async with _answering(_GOOD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) as (server, head):
        assert await head() == (_DIGEST, _TYPE)
        assert await head() == (_DIGEST, _TYPE)
    assert server.connections == 2


async def test_a_registry_that_has_too_much_to_do_is_told_apart() -> None:
    async with _answering(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\nContent-Length: 9\r\n\r\n") as (
        _,
        head,
    ):
        assert await head() == Busy(429, "30")
    async with _answering(b"HTTP/1.1 503 Busy\r\n\r\n") as (_, head):
        assert await head() == Busy(503, None)


async def test_a_server_that_is_not_there_is_no_answer() -> None:
    async with _answering() as (server, head):
        assert await head() is None
    assert server.connections == 1


async def test_a_client_asks_a_repository_it_knows_by_one_request(registry: RegistryServer) -> None:
    async with (
        FaultyRegistry.before(registry.address) as proxy,
        RegistryClient(options=impatient()) as client,
    ):
        reference = ImageReference.parse(f"{proxy.address}/layers:1")
        first = await client.head(reference)
        assert await client.head(reference) == first
        assert await client.head(reference) == first
    assert len(proxy.requests) == 3
