"""A front end as a process: what comes before it serves, and its end."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TextIO

from services.common.allocator import limit_arenas
from services.common.errors import SuiteError
from services.common.logs import configure_logging
from services.common.stopping import until_told
from services.node.settings import NodeSettings

__all__ = ["run_front_end"]


def run_front_end(
    settings: NodeSettings, serve: Callable[[asyncio.Event], Awaitable[None]], *, calm: TextIO | None = None
) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status.

    Parameters
    ----------
    settings
        The front end's settings.
    serve
        What it does, until the event that it is given is set.
    calm
        Where events below warnings are logged; standard error by default, as all others.
    """
    configure_logging(level=settings.log_level, output=settings.log_format, calm=calm)
    limit_arenas()
    os.umask(0o022)
    status = 0
    try:
        asyncio.run(_serve(serve))
    except* SuiteError as group:
        sys.stderr.writelines(f"{failure}\n" for failure in group.exceptions)
        status = 1
    return status


async def _serve(serve: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = until_told()
    # A program that has held one back until it can end in order gets it now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
    await serve(stop)
