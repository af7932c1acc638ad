"""The plugin as a process: from its settings to its end."""

import asyncio
import contextlib
import socket
from typing import TextIO

import structlog

from services.common.only_process import only_process
from services.common.readiness import announce_ready
from services.common.unix_socket import listen
from services.graphdriver.factory import DriverFactory
from services.graphdriver.plugin.handlers import build_app
from services.graphdriver.plugin.server import serve
from services.graphdriver.plugin.session import Session
from services.graphdriver.settings import GraphDriverSettings
from services.node.configuration import Configuration
from services.node.monitoring import Monitoring
from services.node.process import run_front_end
from services.node.store import NodeStore

__all__ = ["run"]

_log = structlog.get_logger(__name__)

_WAITING = (
    "dockerd initialises it when it starts with --experimental and --storage-driver set to this plugin's name; never "
    "with the containerd-snapshotter feature on, and never from Docker 28 on, which has no graphdriver plugins"
)


def run(
    configuration: Configuration[GraphDriverSettings],
    *,
    calm: TextIO | None = None,
    listener: socket.socket | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status.

    Parameters
    ----------
    configuration
        All settings.
    calm
        Where events below warnings are logged; standard error by default, as all others.
    listener
        The plugin's socket where it listens already; otherwise it does from when requests can be answered.
    """
    return run_front_end(configuration.settings, lambda stop: _serve(configuration, listener, stop), calm=calm)


async def _serve(
    configuration: Configuration[GraphDriverSettings], listener: socket.socket | None, stop: asyncio.Event
) -> None:
    settings = configuration.settings
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(only_process(settings.state, setting=settings.variable("state")))
        store = None
        if configuration.store is not None:
            store = await stack.enter_async_context(NodeStore(settings=configuration.store))
        factory = DriverFactory(settings=settings, limits=configuration.limits, store=store)
        session = Session(state=settings.state, factory=factory)
        if settings.metrics is not None:
            monitoring = Monitoring(metrics=factory.metrics, state=session.state)
            await stack.enter_async_context(monitoring.serve(settings.metrics, setting=settings.variable("metrics")))
        await session.restore()
        async with asyncio.TaskGroup() as tasks:
            house_keeping = tasks.create_task(session.keep_house(settings.copy_interval))
            if listener is None:
                listener = await asyncio.to_thread(listen, settings.socket, setting=settings.variable("socket"))
            async with serve(build_app(session, factory.metrics), listener):
                _log.info("serving", socket=str(settings.socket), repositories=settings.repositories)
                if not session.initialised:
                    _log.info("waiting_for_the_engine", hint=_WAITING)
                announce_ready()
                await stop.wait()
            house_keeping.cancel()
    _log.info("stopped")
