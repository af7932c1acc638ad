"""The snapshotter as a process: from its settings to its end."""

import asyncio
import contextlib
from collections.abc import Iterator

import structlog

from services.common.only_process import only_process
from services.common.readiness import announce_ready
from services.common.serial import SerialThread
from services.common.unix_socket import listen
from services.node.configuration import Configuration
from services.node.house_keeping import HouseKeeper
from services.node.process import run_front_end
from services.node.store import NodeStore
from services.snapshotter.factory import build
from services.snapshotter.rpc.calls import Calls
from services.snapshotter.rpc.diff import DiffHandlers
from services.snapshotter.rpc.greeting import Greeter
from services.snapshotter.rpc.server import serve
from services.snapshotter.rpc.snapshots import SnapshotsHandlers
from services.snapshotter.settings import SnapshotterSettings

__all__ = ["run"]

_log = structlog.get_logger(__name__)


def run(configuration: Configuration[SnapshotterSettings], inherited: Greeter | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status.

    Parameters
    ----------
    configuration
        All settings.
    inherited
        Has the socket that a service manager has handed over; the settings' own one is made where there is none.
    """
    return run_front_end(configuration.settings, lambda stop: _serve(configuration, inherited, stop))


async def _serve(
    configuration: Configuration[SnapshotterSettings], inherited: Greeter | None, stop: asyncio.Event
) -> None:
    settings = configuration.settings
    async with contextlib.AsyncExitStack() as stack:
        greeter = inherited or stack.enter_context(_own_greeter(settings))
        stack.enter_context(only_process(settings.state, setting=settings.variable("state")))
        store = None
        if configuration.store is not None:
            store = await stack.enter_async_context(NodeStore(settings=configuration.store))
        thread = SerialThread("snapshots")
        stack.callback(thread.close)
        front_end = await thread.run(
            lambda: build(settings=settings, limits=configuration.limits, store=store, thread=thread)
        )
        stack.push_async_callback(thread.run, front_end.store.close)
        await front_end.snapshotter.resume()
        if settings.metrics is not None:
            # A server of HTTP takes memory on every node, and nothing else here needs one.
            from services.node.monitoring import Monitoring  # noqa: PLC0415

            monitoring = Monitoring(metrics=front_end.metrics, state=front_end.state.read)
            await stack.enter_async_context(monitoring.serve(settings.metrics, setting=settings.variable("metrics")))
        calls = Calls(front_end.metrics)
        handlers = (
            SnapshotsHandlers(snapshotter=front_end.snapshotter, calls=calls),
            DiffHandlers(differ=front_end.differ, calls=calls),
        )
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(_keep(front_end.snapshotter.house, settings.copy_interval))
            async with serve(handlers, greeter):
                _log.info("serving", socket=greeter.listener.getsockname(), repositories=settings.repositories)
                announce_ready()
                await stop.wait()
            keeping.cancel()
    _log.info("stopped")


@contextlib.contextmanager
def _own_greeter(settings: SnapshotterSettings) -> Iterator[Greeter]:
    with contextlib.closing(Greeter(listen(settings.socket, setting=settings.variable("socket")))) as greeter:
        try:
            yield greeter
        finally:
            with contextlib.suppress(FileNotFoundError):
                settings.socket.unlink()


async def _keep(house: HouseKeeper, interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        await house.keep()
