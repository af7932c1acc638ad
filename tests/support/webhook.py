"""A receiver of notifications that keeps what it gets and can refuse some."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from aiohttp import web

__all__ = ["Received", "Webhook"]


@dataclass(frozen=True, slots=True)
class Received:
    """One request."""

    path: str
    """Path and query."""
    authorization: str | None
    """The header."""
    body: bytes
    """The body."""


class Webhook:
    """The receiver, at `url`."""

    def __init__(self) -> None:
        self.url = ""
        self.received: asyncio.Queue[Received] = asyncio.Queue()
        """What was accepted."""
        self.refusals = 0
        """How many of the next requests are refused."""

    @classmethod
    @asynccontextmanager
    async def listen(cls, port: int = 0) -> AsyncIterator[Self]:
        """Run a receiver."""
        self = cls()
        application = web.Application()
        application.router.add_post("/{path:.*}", self._receive)
        runner = web.AppRunner(application, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            self.url = "http://{}:{}".format(*runner.addresses[0])
            yield self
        finally:
            await runner.cleanup()

    async def next(self, within: float = 300) -> Received:
        """Wait for the next request, in seconds."""
        async with asyncio.timeout(within):
            return await self.received.get()

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.refusals > 0:
            self.refusals -= 1
            return web.Response(status=500)
        self.received.put_nowait(Received(request.path_qs, request.headers.get("Authorization"), body))
        return web.Response(status=204)
