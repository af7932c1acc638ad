"""The network between a service and a server, which can be cut: nothing comes through then, and nobody is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from harness.ports import free_ports
from tests.support.connections import Connections

__all__ = ["Link"]

_PIECE = 1 << 16


class Link:
    """Passes on what comes to a port of its own to a server on this machine.

    Parameters
    ----------
    port
        Port of the server.
    """

    def __init__(self, port: int) -> None:
        (self.port,) = free_ports(1)
        self._server_port = port
        self._passes = asyncio.Event()
        self._passes.set()
        self._connections = Connections(self._serve)

    @asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        """Pass on, until the end of the context."""
        async with self._connections.taken(port=self.port):
            yield

    def cut(self) -> None:
        """Let nothing through; connections stay, and new ones are taken and hear nothing."""
        self._passes.clear()

    async def mend(self) -> None:
        """Let everything through; connections that were there are lost, with what was on its way."""
        await self._connections.abort()
        self._passes.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._passes.wait()
            back, forth = await asyncio.open_connection("127.0.0.1", self._server_port)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pass_on(reader, forth))
                    group.create_task(self._pass_on(back, writer))
            except* ConnectionError:
                pass  # one side has gone: the other is cut off
            finally:
                forth.transport.abort()
        except ConnectionRefusedError:
            pass  # the server is down, which the client sees
        finally:
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_PIECE):
            await self._passes.wait()
            writer.write(piece)
            await writer.drain()
        await self._passes.wait()
        raise ConnectionResetError
