"""Serving HTTP for as long as a service runs."""

import asyncio

import pytest
from aiohttp import ClientSession, web

from harness.ports import free_ports
from services.common.http_server import serve


async def test_a_request_under_way_is_finished_before_the_end() -> None:
    (port,) = free_ports(1)
    stopped, begun, answer = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(_request: web.Request) -> web.Response:
        begun.set()
        await answer.wait()
        return web.Response(text="done")

    app = web.Application()
    app.add_routes([web.get("/", slow)])
    async with asyncio.timeout(300), asyncio.TaskGroup() as group:
        serving = group.create_task(serve(app, host="127.0.0.1", port=port, stopped=stopped))
        asking = group.create_task(_ask(port))
        await begun.wait()
        stopped.set()
        answer.set()
        assert await asking == "done"
        await serving


async def _ask(port: int) -> str:
    async with ClientSession() as session:
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{port}/") as response:
                    return await response.text()
            except OSError:
                await asyncio.sleep(0.01)  # until somebody listens


async def test_an_address_that_is_taken_is_an_error() -> None:
    async def nobody(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None: ...

    async with await asyncio.start_server(nobody, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(OSError, match="address already in use"):
            await serve(web.Application(), host="127.0.0.1", port=port, stopped=asyncio.Event())
