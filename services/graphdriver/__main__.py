"""`python -m services.graphdriver`: the plugin as a process."""

import asyncio
import contextlib
import os
import signal
import sys

import structlog

from services.common.allocator import limit_arenas
from services.common.archive.limits import ArchiveLimits
from services.common.errors import SuiteError
from services.common.logs import configure_logging
from services.common.object_store import ObjectStore, ObjectStoreSettings
from services.common.settings import SettingsError, render_help
from services.graphdriver.core.mounts import MountThread
from services.graphdriver.factory import DriverFactory
from services.graphdriver.plugin.handlers import build_app
from services.graphdriver.plugin.server import serve
from services.graphdriver.plugin.session import Session, only_process
from services.graphdriver.settings import GraphDriverSettings

__all__ = ["main"]

_log = structlog.get_logger(__name__)

_PURPOSE = (
    "The Docker graphdriver plugin for thin images: serves the plugin protocol on a unix socket. Start it as root "
    "before the engine, which then runs with `--experimental -s NAME`: NAME is the socket's file name without .sock. "
    "Without LAYER_STORE_ENDPOINT regular and thin images run, but commits of thin containers fail."
)


def main() -> int:
    """Run the plugin until SIGTERM or SIGINT; return the exit status."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        groups = (GraphDriverSettings, ObjectStoreSettings, ArchiveLimits)
        sys.stdout.write(render_help("python -m services.graphdriver", _PURPOSE, groups))
        return 0
    if sys.argv[1:]:
        sys.stderr.write(f"unknown argument {sys.argv[1]}: settings come from the environment, see --help\n")
        return 2
    try:
        settings = GraphDriverSettings.load()
        limits = ArchiveLimits.load()
        store = ObjectStoreSettings.load() if _has_store() else None
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logging(level=settings.log_level, output=settings.log_format)
    limit_arenas()
    os.umask(0o022)
    status = 0
    try:
        asyncio.run(_run(settings, limits, store))
    except* SuiteError as group:
        sys.stderr.writelines(f"{failure}\n" for failure in group.exceptions)
        status = 1
    return status


def _has_store() -> bool:
    """Whether anything is said about an object store; what is missing then, its settings tell."""
    return any(name.upper().startswith("LAYER_STORE_") and value for name, value in os.environ.items())


async def _run(
    settings: GraphDriverSettings, limits: ArchiveLimits, store_settings: ObjectStoreSettings | None
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(only_process(settings.state))
        mount_thread = stack.enter_context(MountThread())
        store = None
        if store_settings is not None:
            store = await stack.enter_async_context(ObjectStore(settings=store_settings))
        factory = DriverFactory(settings=settings, limits=limits, store=store, mount_thread=mount_thread)
        session = Session(state=settings.state, factory=factory)
        await session.restore()
        async with asyncio.TaskGroup() as tasks:
            house_keeping = tasks.create_task(session.keep_house(settings.copy_interval))
            async with serve(build_app(session), settings.socket):
                _log.info("serving", socket=str(settings.socket), repositories=settings.repositories)
                await stop.wait()
            house_keeping.cancel()
    _log.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
