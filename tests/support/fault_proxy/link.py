"""A network between two that talk over TCP, whatever their protocol."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from harness.ports import free_ports
from tests.support.fault_proxy.connections import Connections, ending, pass_on
from tests.support.fault_proxy.network import WELL, Condition, Network

__all__ = ["Link"]


class Link:
    """Passes on what comes to a port of its own to a server.

    Parameters
    ----------
    port
        Port of the server.
    host
        Address of the server.
    """

    def __init__(self, port: int, *, host: str = "127.0.0.1") -> None:
        (self.port,) = free_ports(1)
        self.network = Network()
        self._server = (host, port)
        self._connections = Connections(self._serve)

    @asynccontextmanager
    async def up(self, address: str = "127.0.0.1") -> AsyncIterator[None]:
        """Pass on what comes to an address of this machine, until the end of the context."""
        async with self._connections.taken(address=address, port=self.port):
            yield

    def cut(self) -> None:
        """Let nothing through; connections stay, and new ones are taken and hear nothing."""
        self.network.become(Condition(silent=True))

    async def mend(self) -> None:
        """Let everything through; connections that were there are lost, with what was on its way."""
        await self._connections.abort()
        self.network.become(WELL)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self.network.passage() as passage:
            await passage.begin()
            back, forth = await asyncio.open_connection(*self._server)
            with ending(forth):
                async with asyncio.TaskGroup() as group:
                    group.create_task(pass_on(reader, forth, passage.there))
                    group.create_task(pass_on(back, writer, passage.back))
