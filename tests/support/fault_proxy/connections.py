"""Connections that a proxy takes, each served by a task of its own."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from tests.support.fault_proxy.effects import Effect

__all__ = ["Connections", "ending", "pass_on"]

_PIECE: Final = 1 << 16
_NO_LINGER: Final = struct.pack("ii", 1, 0)
"""Has a socket send RST when it is closed."""

_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[object, object, None]]


class Connections:
    """The connections.

    Parameters
    ----------
    serve
        Serves one. Its other side is ended in the same way: orderly or, if this raises, not.
    """

    def __init__(self, serve: _Serve) -> None:
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def taken(self, *, address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
        """Take connections at an address of this machine until the end of the context; give the port."""
        server = await asyncio.start_server(self._accept, address, port)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            await self.abort()
            await server.wait_closed()

    async def abort(self) -> None:
        """End those that are there."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._run(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with ending(writer):
                await self._serve(reader, writer)
        except* (OSError, asyncio.IncompleteReadError):
            pass  # one side has gone, or was made to seem so: the other has been cut off


@contextmanager
def ending(writer: asyncio.StreamWriter) -> Iterator[None]:
    """End a connection: orderly if all went well, else by RST."""
    try:
        yield
    except BaseException:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        writer.transport.abort()
        raise
    writer.close()


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, effect: Effect) -> None:
    """Pass one direction of a connection on, to its end."""
    position = 0
    while piece := await reader.read(_PIECE):
        writer.write(await effect(position, piece))
        await writer.drain()
        position += len(piece)
    writer.write_eof()
