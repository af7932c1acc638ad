"""A web server that has a wish list, and does what it is told."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from aiohttp import web

from tests.support.registries import Authority

__all__ = ["ListServer"]


class ListServer:
    """Serves one list by https, at every path."""

    def __init__(self) -> None:
        self.content = b""
        self.etag: str | None = None
        self.last_modified: str | None = None
        self.status = 200
        self.location = ""
        self.asked: list[web.BaseRequest] = []
        self.url = ""
        self._runner: web.ServerRunner

    @classmethod
    @asynccontextmanager
    async def listening(cls, authority: Authority) -> AsyncIterator[Self]:
        """Listen on the loopback interface."""
        self = cls()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*await authority.issue("lists"))
        self._runner = web.ServerRunner(web.Server(self._answer))
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context).start()
            host, port = self._runner.addresses[0][:2]
            self.url = f"https://{host}:{port}/list.yaml"
            yield self
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Listen no more."""
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        self.asked.append(request)
        if self.location:
            return web.Response(status=302, headers={"Location": self.location})
        headers = {"ETag": self.etag, "Last-Modified": self.last_modified}
        known = (request.headers.get("If-None-Match"), request.headers.get("If-Modified-Since"))
        if self.status == 200 and any(known) and known == (self.etag, self.last_modified):
            return web.Response(status=304)
        return web.Response(
            status=self.status,
            body=self.content,
            headers={name: value for name, value in headers.items() if value is not None},
        )
