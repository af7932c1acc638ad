"""The plugin as a process: from its settings to its end."""

import asyncio
import contextlib
import os
import signal
import sys
from typing import TextIO

import structlog

from services.common.allocator import limit_arenas
from services.common.errors import SuiteError
from services.common.logs import configure_logging
from services.common.object_store import ObjectStore
from services.common.only_process import only_process
from services.common.readiness import announce_ready
from services.graphdriver.factory import DriverFactory
from services.graphdriver.plugin.handlers import build_app
from services.graphdriver.plugin.server import serve
from services.graphdriver.plugin.session import Session
from services.graphdriver.settings import GraphDriverSettings
from services.node.configuration import Configuration

__all__ = ["run"]

_log = structlog.get_logger(__name__)

_WAITING = (
    "dockerd initialises it when it starts with --experimental and --storage-driver set to this plugin's name; never "
    "with the containerd-snapshotter feature on, and never from Docker 28 on, which has no graphdriver plugins"
)


def run(configuration: Configuration[GraphDriverSettings], *, calm: TextIO | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status.

    Parameters
    ----------
    configuration
        All settings.
    calm
        Where events below warnings are logged; standard error by default, as all others.
    """
    settings = configuration.settings
    configure_logging(level=settings.log_level, output=settings.log_format, calm=calm)
    limit_arenas()
    os.umask(0o022)
    status = 0
    try:
        asyncio.run(_serve(configuration))
    except* SuiteError as group:
        sys.stderr.writelines(f"{failure}\n" for failure in group.exceptions)
        status = 1
    return status


async def _serve(configuration: Configuration[GraphDriverSettings]) -> None:
    settings = configuration.settings
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(only_process(settings.state, setting=settings.variable("state")))
        store = None
        if configuration.store is not None:
            store = await stack.enter_async_context(ObjectStore(settings=configuration.store))
        factory = DriverFactory(settings=settings, limits=configuration.limits, store=store)
        session = Session(state=settings.state, factory=factory)
        await session.restore()
        async with asyncio.TaskGroup() as tasks:
            house_keeping = tasks.create_task(session.keep_house(settings.copy_interval))
            async with serve(build_app(session), settings.socket):
                _log.info("serving", socket=str(settings.socket), repositories=settings.repositories)
                if not session.initialised:
                    _log.info("waiting_for_the_engine", hint=_WAITING)
                announce_ready()
                await stop.wait()
            house_keeping.cancel()
    _log.info("stopped")
