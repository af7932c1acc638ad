"""The unix socket on which the engine finds the plugin."""

import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

__all__ = ["serve"]

_KEEP_ALIVE: Final = 10 * 365 * 86400.0
"""Seconds: the engine keeps idle connections for ever, and one closed by the server can cost a request its body."""
_READ_BUFFER: Final = 1 << 20
"""Bytes of a request body that are read ahead."""

_SHUTDOWN_TIMEOUT: Final = 4
"""Seconds for requests to end when the program does; aiohttp waits twice as long, and the engine ten seconds."""


@asynccontextmanager
async def serve(app: web.Application, listener: socket.socket) -> AsyncIterator[None]:
    """Serve an application on a unix socket for as long as the context lasts.

    Parameters
    ----------
    app
        What is served.
    listener
        The socket, which listens already; closed and removed in the end.
    """
    runner = web.AppRunner(
        app,
        keepalive_timeout=_KEEP_ALIVE,
        read_bufsize=_READ_BUFFER,
        access_log=None,
        shutdown_timeout=_SHUTDOWN_TIMEOUT,
    )
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(listener.getsockname())
        await runner.cleanup()
