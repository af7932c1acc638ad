"""`python -m harness.bench.nothing`: a server in the plugin's place that does nothing but read requests and answer."""

import asyncio
import os
from typing import Final

from aiohttp import web

__all__: list[str] = []

_PIECE: Final = bytes(1 << 20)
_SIZE: Final = 128
"""Pieces of a large diff."""


async def _answer(request: web.Request) -> web.Response:
    async for _ in request.content.iter_any():
        pass
    return web.Response(body=b'{"Err": ""}', content_type="application/json")


async def _diff(request: web.Request) -> web.StreamResponse:
    if (await request.json())["ID"] != "large":
        return web.Response(body=bytes(2048), content_type="application/x-tar")
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(_SIZE):
        await response.write(_PIECE)
    await response.write_eof()
    return response


async def _serve() -> None:
    app = web.Application()
    app.router.add_post("/GraphDriver.Diff", _diff)
    app.router.add_post("/{operation}", _answer)
    runner = web.AppRunner(app, access_log=None, read_bufsize=1 << 20)
    await runner.setup()
    await web.UnixSite(runner, os.environ["GRAPHDRIVER_SOCKET"]).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
