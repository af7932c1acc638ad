"""The server on the unix socket."""

import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from grpclib.server import Server

from services.snapshotter.rpc.calls import Calls

if TYPE_CHECKING:
    from grpclib._typing import IServable

__all__ = ["inherited_socket", "serve"]

_FIRST_INHERITED: Final = 3
"""Number of the first descriptor that a service manager hands over (sd_listen_fds(3))."""

_SHUTDOWN_TIMEOUT: Final = 5
"""Seconds for calls to end when the program does."""


def inherited_socket() -> socket.socket | None:
    """Return the listening socket that a service manager has handed over, if there is one."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    return socket.socket(fileno=_FIRST_INHERITED)


@asynccontextmanager
async def serve(services: Sequence["IServable"], calls: Calls, listener: socket.socket) -> AsyncIterator[None]:
    """Serve on a socket for as long as the context lasts, and then end what is being served.

    Parameters
    ----------
    services
        What is served.
    calls
        Counts what is being served.
    listener
        Where.
    """
    server = Server(services)
    await server.start(sock=listener)
    try:
        yield
    finally:
        await calls.end(timeout=_SHUTDOWN_TIMEOUT)
        # Not waited for: containerd keeps its connection open for ever.
        server.close()
