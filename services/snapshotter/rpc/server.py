"""The server on the unix socket."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog

from services.snapshotter.rpc.connections import CallServer
from services.snapshotter.rpc.greeting import Greeter

if TYPE_CHECKING:
    from grpclib._typing import IServable

__all__ = ["CALLS_TIMEOUT", "END_TIMEOUT", "serve"]

_log = structlog.get_logger(__name__)

CALLS_TIMEOUT: Final = 5
"""Seconds for calls to end when the program does."""

END_TIMEOUT: Final = 5
"""Seconds for those that were given up to clean up, and for connections to be closed."""


@asynccontextmanager
async def serve(services: Sequence["IServable"], greeter: Greeter) -> AsyncIterator[None]:
    """Serve on a socket for as long as the context lasts, and then end what is being served.

    Whoever connects later finds a socket that nobody accepts from; whoever is connected is told to go there.

    Parameters
    ----------
    services
        What is served.
    greeter
        Has the socket, and those who have come already.
    """
    server = CallServer(services)
    for connection in greeter.take_over():
        await server.take_over(connection)
    await server.start(sock=greeter.listener)
    try:
        yield
    finally:
        server.close()
        await _end(server)


async def _end(server: CallServer) -> None:
    for client in server.clients:
        client.part()
    calls = set(server.calls)
    if calls:
        _, late = await asyncio.wait(calls, timeout=CALLS_TIMEOUT)
        if late:
            _log.warning("calls_given_up", calls=len(late))
    for client in set(server.clients):
        client.end()
    # What was given up still uses what is closed after this.
    ending = [*server.calls, *(asyncio.create_task(client.closed.wait()) for client in server.clients)]
    if ending:
        await asyncio.wait(ending, timeout=END_TIMEOUT)
