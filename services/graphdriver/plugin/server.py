"""The unix socket on which the engine finds the plugin."""

import asyncio
import contextlib
import os
import socket
import stat
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

_SHUTDOWN_TIMEOUT: Final = 4
"""Seconds for requests to end when the program does; aiohttp waits twice as long, and the engine ten seconds."""


@asynccontextmanager
async def serve(app: web.Application, path: Path) -> AsyncIterator[None]:
    """Serve an application on a unix socket for as long as the context lasts.

    Raises
    ------
    GraphDriverError
        Another process listens on the socket, or it cannot be made.
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
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _make_way(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The socket gives root's power over the layers to whoever can open it.
        old = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        except BaseException:
            listener.close()
            raise
        finally:
            os.umask(old)
    except OSError as error:
        raise GraphDriverError(f"cannot listen on {path}: {error.strerror or error}: set GRAPHDRIVER_SOCKET") from error
    listener.listen(128)
    return listener


def _make_way(path: Path) -> None:
    """Remove the socket that a killed process left; a bind over it would fail."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise GraphDriverError(f"{path} is there and is no socket: set GRAPHDRIVER_SOCKET, or remove it")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        else:
            raise GraphDriverError(f"another process listens on {path}: stop it, or set GRAPHDRIVER_SOCKET")
