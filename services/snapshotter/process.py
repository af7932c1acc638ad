"""The snapshotter as a process: from its settings to its end."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import structlog

from services.common.object_store import ObjectStore
from services.common.only_process import only_process
from services.common.readiness import announce_ready
from services.common.unix_socket import listen
from services.node.configuration import Configuration
from services.node.house_keeping import HouseKeeper
from services.node.monitoring import Monitoring
from services.node.process import run_front_end
from services.snapshotter.factory import build
from services.snapshotter.rpc.calls import Calls
from services.snapshotter.rpc.diff import DiffHandlers
from services.snapshotter.rpc.server import inherited_socket, serve
from services.snapshotter.rpc.snapshots import SnapshotsHandlers
from services.snapshotter.serial import SerialThread
from services.snapshotter.settings import SnapshotterSettings

__all__ = ["run"]

_log = structlog.get_logger(__name__)


def run(configuration: Configuration[SnapshotterSettings]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status.

    Parameters
    ----------
    configuration
        All settings.
    """
    return run_front_end(configuration.settings, lambda stop: _serve(configuration, stop))


async def _serve(configuration: Configuration[SnapshotterSettings], stop: asyncio.Event) -> None:
    settings = configuration.settings
    async with contextlib.AsyncExitStack() as stack:
        # Before everything else: whoever connects meanwhile waits instead of being refused.
        listener = stack.enter_context(_listener(settings))
        stack.enter_context(only_process(settings.state, setting=settings.variable("state")))
        store = None
        if configuration.store is not None:
            store = await stack.enter_async_context(ObjectStore(settings=configuration.store))
        thread = SerialThread()
        stack.callback(thread.close)
        front_end = await thread.run(
            lambda: build(settings=settings, limits=configuration.limits, store=store, thread=thread)
        )
        stack.callback(front_end.store.close)
        await front_end.snapshotter.resume()
        monitoring = Monitoring(metrics=front_end.metrics, state=front_end.state.read)
        await stack.enter_async_context(monitoring.serve(settings.metrics, setting=settings.variable("metrics")))
        calls = Calls(front_end.metrics)
        handlers = (
            SnapshotsHandlers(snapshotter=front_end.snapshotter, calls=calls),
            DiffHandlers(differ=front_end.differ, calls=calls),
        )
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(_keep(front_end.snapshotter.house, settings.copy_interval))
            async with serve(handlers, calls, listener):
                _log.info("serving", socket=listener.getsockname(), repositories=settings.repositories)
                announce_ready()
                await stop.wait()
            keeping.cancel()
    _log.info("stopped")


@contextlib.contextmanager
def _listener(settings: SnapshotterSettings) -> Iterator[socket.socket]:
    inherited = inherited_socket()
    if inherited is not None:
        with inherited:
            yield inherited
        return
    with listen(settings.socket, setting=settings.variable("socket")) as own:
        try:
            yield own
        finally:
            with contextlib.suppress(FileNotFoundError):
                settings.socket.unlink()


async def _keep(house: HouseKeeper, interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        await house.keep()
