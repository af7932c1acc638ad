"""The converter as a process: the daemon, and one round."""

import asyncio

from services.common.http_server import serve
from services.common.stopping import until_told
from services.converter.factory import build_converter
from services.converter.rounds.rounds import OnceResult
from services.converter.settings import ConverterSettings
from services.registry.options import RegistryOptions

__all__ = ["run_forever", "run_once"]


async def run_forever(settings: ConverterSettings, options: RegistryOptions) -> None:
    """Keep repositories up to date until SIGTERM or SIGINT.

    Raises
    ------
    SuiteError
        The converter cannot be built, or its state failed.
    """
    stopped = until_told()
    async with build_converter(settings, options) as converter, asyncio.TaskGroup() as group:
        work = group.create_task(converter.rounds.run(converter.hints))
        await serve(converter.app, host=settings.host, port=settings.port, stopped=stopped)
        work.cancel()


async def run_once(settings: ConverterSettings, options: RegistryOptions) -> OnceResult:
    """Look at everything once, and see it through; raises as `run_forever`."""
    async with build_converter(settings, options) as converter:
        return await converter.rounds.once()
