"""The server on the unix socket."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import structlog

from services.snapshotter.rpc.connections import CallServer
from services.snapshotter.rpc.greeting import Greeter

if TYPE_CHECKING:
    from grpclib._typing import IServable

__all__ = ["CALLS_TIMEOUT", "END_TIMEOUT", "LEAVE_TIMEOUT", "serve"]

_log = structlog.get_logger(__name__)

LEAVE_TIMEOUT: Final = 2
"""Seconds for clients to read that they are to go elsewhere, which those that run do at once."""

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
    clients = set(server.clients)
    for client in clients:
        client.part()
    await _ended([asyncio.create_task(client.left()) for client in clients], timeout=LEAVE_TIMEOUT)
    late = await _ended(server.calls, timeout=CALLS_TIMEOUT)
    if late:
        _log.warning("calls_given_up", calls=late)
    for client in set(server.clients):
        client.end()
    # What was given up still uses what is closed after this.
    closing = [asyncio.create_task(client.closed.wait()) for client in server.clients]
    await _ended([*server.calls, *closing], timeout=END_TIMEOUT)


async def _ended(tasks: Iterable["asyncio.Task[Any]"], *, timeout: float) -> int:  # noqa: ASYNC109 - what is late is counted
    """Wait for tasks; return how many have not ended in time."""
    pending = set(tasks)
    if pending:
        _, pending = await asyncio.wait(pending, timeout=timeout)
    return len(pending)
