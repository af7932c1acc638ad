"""Makes a server on the loopback interface reachable from elsewhere, for containers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["forwarded"]

_PIECE = 1 << 16


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        return  # the other direction ends too
    finally:
        writer.close()


@asynccontextmanager
async def forwarded(address: str, host: str, port: int) -> AsyncIterator[str]:
    """Listen at an address of this machine, pass on what comes, and give `ADDRESS:PORT`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(host, port)
        await asyncio.gather(_copy(reader, forth), _copy(back, writer))

    server = await asyncio.start_server(serve, address, 0)
    async with server:
        yield "{}:{}".format(*server.sockets[0].getsockname())
