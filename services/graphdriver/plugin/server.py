"""The unix socket on which the engine finds the plugin."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from aiohttp import web

from services.graphdriver.errors import GraphDriverError

__all__ = ["serve"]

_KEEP_ALIVE: Final = 10 * 365 * 86400.0
"""Seconds: the engine keeps idle connections for ever, and one closed by the server can cost a request its body."""
_READ_BUFFER: Final = 1 << 20
"""Bytes of a request body that are read ahead."""

_SHUTDOWN_TIMEOUT: Final = 8
"""Seconds for requests to end at the end of the program: an engine kills a managed plugin after ten."""


@asynccontextmanager
async def serve(app: web.Application, path: Path) -> AsyncIterator[None]:
    """Serve an application on a unix socket for as long as the context lasts.

    Raises
    ------
    GraphDriverError
        Another process listens on the socket.
    """
    listener = await asyncio.to_thread(_listen, path)
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
            os.unlink(path)
        await runner.cleanup()


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            # What is left of a killed process; a bind over it would fail.
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        else:
            listener.close()
            raise GraphDriverError(f"another process listens on {path}: stop it, or set GRAPHDRIVER_SOCKET")
    # The socket gives root's power over the layers to whoever can open it.
    old = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
    finally:
        os.umask(old)
    listener.listen(128)
    return listener
