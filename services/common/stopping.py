"""The signals that a service gets from whoever runs it."""

import asyncio
import signal

import structlog

__all__ = ["until_told"]

_log = structlog.get_logger(__name__)


def until_told() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set; from now on SIGHUP ends nothing.

    By custom it has a service read its settings again. These come from the environment, which no process can read anew,
    and files that may change are looked at anyway. So it is said what to do instead: a terminal that hangs up, or a
    `reload` in somebody's unit, is no reason to end in the middle of something.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _say)
    return stop


def _say() -> None:
    _log.warning(
        "SIGHUP changes nothing: settings are read at the start, restart for new ones; files that may change are read "
        "again by themselves"
    )
