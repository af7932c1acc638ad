"""Run the publisher: `python -m services.publisher`."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack

import structlog

from services.common.allocator import limit_arenas
from services.common.archive.limits import ArchiveLimits
from services.common.errors import SuiteError
from services.common.http_server import serve
from services.common.logs import configure_logging
from services.common.object_store.settings import ObjectStoreSettings
from services.common.settings import render_help
from services.common.stopping import until_told
from services.publisher.factory import build_publisher
from services.publisher.settings import PublisherSettings
from services.registry.options import RegistryOptions
from services.registry.settings import RegistrySettings

__all__ = ["main"]

_log = structlog.get_logger(__name__)

_PURPOSE = (
    "Publishes layers to a repository as they arrive in an object store, and images that are asked for: takes the "
    "store's notifications, fetches and verifies the layer archives from the store or from registries, and publishes "
    "them in batches. Runs on the stratum 0, as root, since layers hold files of every owner."
)


async def _serve(
    settings: PublisherSettings,
    store_settings: ObjectStoreSettings,
    limits: ArchiveLimits,
    registry_options: RegistryOptions,
) -> None:
    stopped = until_told()
    async with AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(build_publisher(settings, store_settings, limits, registry_options))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = [group.create_task(run()) for run in publisher.services]
        await serve(publisher.app, host=settings.host, port=settings.port, stopped=stopped)
        for task in tasks:
            task.cancel()


def main() -> int:
    """Run until SIGTERM; return the exit status."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        sys.stdout.write(
            render_help(
                "python -m services.publisher",
                _PURPOSE,
                (PublisherSettings, ObjectStoreSettings, ArchiveLimits, RegistrySettings),
            )
        )
        return 0
    if sys.argv[1:]:
        sys.stderr.write("the publisher takes no arguments; --help shows its settings\n")
        return 2
    limit_arenas()
    os.umask(0o022)
    status = 0
    try:
        settings, store_settings = PublisherSettings.load(), ObjectStoreSettings.load()
        limits, registries = ArchiveLimits.load(), RegistrySettings.load()
        configure_logging(level=settings.log_level, output=settings.log_format)
        if settings.database is not None:
            structlog.contextvars.bind_contextvars(instance=settings.shown_name)
        asyncio.run(_serve(settings, store_settings, limits, registries.options()))
    except* (SuiteError, OSError) as errors:
        for error in _leaves(errors):
            sys.stderr.write(f"the publisher ends: {error}\n")
        status = 1
    return status


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


if __name__ == "__main__":
    sys.exit(main())
