"""Serves an HTTP application for as long as a service runs."""

import asyncio
from typing import Final

import structlog
from aiohttp import web

from services.common.readiness import announce_ready

__all__ = ["serve"]

_log = structlog.get_logger(__name__)

_SHUTDOWN: Final = 5
"""Seconds that requests under way have at the end."""


async def serve(app: web.Application, *, host: str, port: int, stopped: asyncio.Event) -> None:
    """Serve requests until told to stop; the ones under way are finished.

    There is no access log: some senders have their secret in the address.

    Parameters
    ----------
    host, port
        Where to listen; port 0 takes a free one. The log has what was taken.
    stopped
        Set by whoever wants it to end.

    Raises
    ------
    OSError
        The address cannot be listened at.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        _log.info("listening", addresses=[":".join(map(str, address[:2])) for address in runner.addresses])
        announce_ready()
        await stopped.wait()
        _log.info("stopping")
    finally:
        await runner.cleanup()
