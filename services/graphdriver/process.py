"""The plugin as a process: from its settings to its end."""

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from typing import Self, TextIO, TypeVar

import structlog

from services.common.allocator import limit_arenas
from services.common.archive.limits import ArchiveLimits
from services.common.errors import SuiteError
from services.common.logs import configure_logging
from services.common.object_store import ObjectStore, ObjectStoreSettings
from services.common.readiness import announce_ready
from services.common.settings import Settings, SettingsError
from services.graphdriver.factory import DriverFactory
from services.graphdriver.plugin.handlers import build_app
from services.graphdriver.plugin.server import serve
from services.graphdriver.plugin.session import Session, only_process
from services.graphdriver.settings import GraphDriverSettings

__all__ = ["Configuration", "run"]

_log = structlog.get_logger(__name__)

_WAITING = (
    "dockerd initialises it when it starts with --experimental and --storage-driver set to this plugin's name; never "
    "with the containerd-snapshotter feature on, and never from Docker 28 on, which has no graphdriver plugins"
)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """All settings of the process."""

    settings: GraphDriverSettings
    limits: ArchiveLimits
    store: ObjectStoreSettings | None
    """None where nothing is said about an object store."""

    @classmethod
    def load(cls) -> Self:
        """Read the environment.

        Raises
        ------
        SettingsError
            Some are missing, unknown or wrong; the text names those of every class.
        """
        problems: list[str] = []
        settings = _load(GraphDriverSettings, problems)
        limits = _load(ArchiveLimits, problems)
        store = _load(ObjectStoreSettings, problems) if _has_store() else None
        if problems or settings is None or limits is None:
            raise SettingsError("; ".join(problems))
        return cls(settings=settings, limits=limits, store=store)


_Group = TypeVar("_Group", bound=Settings)


def _load(group: type[_Group], problems: list[str]) -> _Group | None:
    try:
        return group.load()
    except SettingsError as error:
        problems.append(str(error))
        return None


def _has_store() -> bool:
    """Whether anything is said about an object store; what is missing then, its settings tell."""
    return any(name.upper().startswith("LAYER_STORE_") and value for name, value in os.environ.items())


def run(configuration: Configuration, *, calm: TextIO | None = None) -> int:
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


async def _serve(configuration: Configuration) -> None:
    settings = configuration.settings
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(only_process(settings.state))
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
