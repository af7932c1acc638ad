"""A proxy in front of a registry that misbehaves as chosen, at the level of requests and answers.

A fault is a coroutine that gets the request and the proxy, and gives an answer in place of the registry's.
"""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

from services.common.image_name import ImageName

__all__ = [
    "Effect",
    "Fault",
    "FaultyRegistry",
    "answered",
    "challenged",
    "changed",
    "cut",
    "endless_pages",
    "held",
    "huge",
    "page",
    "redirected",
    "refused",
    "stalled",
    "trickling",
    "unranged",
    "without_headers",
]

Effect = Callable[["FaultyRegistry", web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Fault:
    """What happens to the next requests of a kind."""

    matches: str
    """Regular expression that `METHOD PATH` holds."""
    effect: Effect
    """What happens."""
    times: int = 1
    """How many requests it happens to."""


@dataclass(slots=True, kw_only=True)
class FaultyRegistry:
    """The proxy; `requests` lists method, path and headers of what it has seen."""

    upstream: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    address: str = ""
    sent: int = 0
    """Bytes of the bodies that the faults have sent."""

    @classmethod
    @asynccontextmanager
    async def before(
        cls, upstream: str, *faults: Fault, tls: tuple[Path, Path] | None = None, host: str = "127.0.0.1"
    ) -> "AsyncIterator[FaultyRegistry]":
        """Run a proxy in front of a registry that speaks plain HTTP."""
        self = cls(upstream=upstream, faults=list(faults))
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        context = None
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        self.address = f"{host}:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    def named(self, name: ImageName) -> ImageName:
        """Return what an image of the registry is called behind the proxy."""
        return ImageName(f"{self.address}/{name.repository}:{name.version}")

    def seen(self, expression: str) -> list[dict[str, str]]:
        """Headers of the requests whose `METHOD PATH` holds this regular expression."""
        return [headers for line, headers in self.requests if re.search(expression, line)]

    async def fetch(self, request: web.Request, *, without: str = "") -> tuple[int, dict[str, str], bytes]:
        """Return the registry's own answer."""
        headers = {name: value for name, value in request.headers.items() if name not in ("Host", without)}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method,
                f"http://{self.upstream}{request.url.raw_path_qs}",
                headers=headers,
                data=await request.read(),
                allow_redirects=False,
            ) as answer,
        ):
            dropped = ("Content-Length", "Transfer-Encoding", "Date")
            kept = {name: value for name, value in answer.headers.items() if name not in dropped}
            if "Location" in kept:
                kept["Location"] = kept["Location"].replace(self.upstream, self.address)
            return answer.status, kept, await answer.read()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        line = f"{request.method} {request.path}"
        self.requests.append((line, dict(request.headers)))
        for fault in self.faults:
            if fault.times and re.search(fault.matches, line):
                fault.times -= 1
                return await fault.effect(self, request)
        status, headers, body = await self.fetch(request)
        if request.method == "HEAD":
            return web.Response(status=status, headers=headers)
        return web.Response(status=status, headers=headers, body=body)


def refused(status: int, *, retry_after: str | None = None, text: str = "made up") -> Effect:
    """Refuse a request."""

    async def effect(_proxy: FaultyRegistry, _request: web.Request) -> web.StreamResponse:
        document = {"errors": [{"code": "MADEUP", "message": text}]}
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        return web.json_response(document, status=status, headers=headers)

    return effect


def page(status: int) -> Effect:
    """Answer with a page for people, as proxies and portals do."""

    async def effect(_proxy: FaultyRegistry, _request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="<html>Sorry</html>", content_type="text/html")

    return effect


def without_headers(*names: str) -> Effect:
    """Answer without some headers."""

    async def effect(proxy: FaultyRegistry, request: web.Request) -> web.StreamResponse:
        status, kept, _ = await proxy.fetch(request)
        return web.Response(status=status, headers={name: kept[name] for name in kept.keys() - set(names)})

    return effect


def challenged(*challenges: str) -> Effect:
    """Want to know the user, with these `WWW-Authenticate` headers."""

    async def effect(_proxy: FaultyRegistry, _request: web.Request) -> web.StreamResponse:
        return web.Response(status=401, headers=[("WWW-Authenticate", challenge) for challenge in challenges])

    return effect


def changed(change: Callable[[bytes], bytes], **headers: str) -> Effect:
    """Answer with another body, and with further headers."""

    async def effect(proxy: FaultyRegistry, request: web.Request) -> web.StreamResponse:
        status, kept, body = await proxy.fetch(request)
        added = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, headers=kept | added, body=change(body))

    return effect


def answered(status: int) -> Effect:
    """Say what comes of a request by another status."""

    async def effect(proxy: FaultyRegistry, request: web.Request) -> web.StreamResponse:
        _, kept, body = await proxy.fetch(request)
        return web.Response(status=status, headers=kept, body=body)

    return effect


def _partial(after: int, *, stall: bool) -> Effect:
    async def effect(proxy: FaultyRegistry, request: web.Request) -> web.StreamResponse:
        status, kept, body = await proxy.fetch(request)
        response = web.StreamResponse(status=status, headers=kept)
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[:after])
        if stall:
            await asyncio.Event().wait()
        assert request.transport is not None
        request.transport.close()
        return response

    return effect


def cut(after: int) -> Effect:
    """Close the connection after so many bytes of the body."""
    return _partial(after, stall=False)


def stalled(after: int) -> Effect:
    """Send nothing more after so many bytes of the body, and keep the connection."""
    return _partial(after, stall=True)


def held(released: asyncio.Event) -> Effect:
    """Answer as the registry does, but not before the event."""

    async def effect(proxy: FaultyRegistry, request: web.Request) -> web.StreamResponse:
        await released.wait()
        status, kept, body = await proxy.fetch(request)
        return web.Response(status=status, headers=kept, body=body)

    return effect


def huge(length: int, *, declared: bool) -> Effect:
    """Send so many bytes, and say how many or not."""

    async def effect(proxy: FaultyRegistry, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/vnd.oci.image.manifest.v1+json"})
        if declared:
            response.content_length = length
        await response.prepare(request)
        while proxy.sent < length:
            await response.write(b" " * (1 << 20))
            proxy.sent += 1 << 20
        return response

    return effect


def redirected(location: str) -> Effect:
    """Send elsewhere."""

    async def effect(_proxy: FaultyRegistry, request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": location.format(path=request.raw_path)})

    return effect


def unranged(change: Callable[[bytes], bytes] = bytes) -> Effect:
    """Answer with the whole body whatever is asked for."""

    async def effect(proxy: FaultyRegistry, request: web.Request) -> web.StreamResponse:
        status, kept, body = await proxy.fetch(request, without="Range")
        return web.Response(status=status, headers=kept, body=change(body))

    return effect


def trickling(size: int) -> Effect:
    """Send the body in small pieces, with a pause before each."""

    async def effect(proxy: FaultyRegistry, request: web.Request) -> web.StreamResponse:
        status, kept, body = await proxy.fetch(request)
        response = web.StreamResponse(status=status, headers=kept)
        response.content_length = len(body)
        await response.prepare(request)
        for start in range(0, len(body), size):
            await asyncio.sleep(0.05)
            await response.write(body[start : start + size])
        return response

    return effect


def endless_pages(*, new: bool) -> Effect:
    """Answer with pages of tags that never end, with new tags or with the same ones."""
    number = 0

    async def effect(_proxy: FaultyRegistry, request: web.Request) -> web.StreamResponse:
        nonlocal number
        number += 1
        document = {"name": "any", "tags": [f"tag-{number if new else 0}"]}
        headers = {"Link": f'<{request.path}?last={number}>; rel="next"', "Content-Type": "application/json"}
        return web.Response(text=json.dumps(document), headers=headers)

    return effect
