"""The converter as a process: the daemon, and one round."""

import asyncio

from services.common.http_server import serve
from services.common.stopping import until_told
from services.common.together import together
from services.converter.errors import StateError
from services.converter.factory import Converter, build_converter
from services.converter.rounds.rounds import OnceResult
from services.converter.settings import ConverterSettings
from services.registry.options import RegistryOptions

__all__ = ["run_forever", "run_once"]


async def run_forever(settings: ConverterSettings, options: RegistryOptions) -> None:
    """Keep repositories up to date until SIGTERM or SIGINT; stand by as long as another converter does.

    Raises
    ------
    SuiteError
        The converter cannot be built, or its state failed, or another converter has its turn.
    """
    stopped = until_told()
    async with build_converter(settings, options) as converter, asyncio.TaskGroup() as group:
        work = group.create_task(_work(converter, stopped))
        await serve(converter.app, host=settings.host, port=settings.port, stopped=stopped)
        work.cancel()


async def run_once(settings: ConverterSettings, options: RegistryOptions) -> OnceResult:
    """Look at everything once, and see it through; raises as `run_forever`."""
    async with build_converter(settings, options) as converter:
        database = converter.state.database
        if not await database.try_to_begin():
            raise StateError("another converter works with the same database: stop it, or leave the work to it")
        async with together() as group:
            holding = group.create_task(database.hold())
            await converter.rounds.begin()
            result = await converter.rounds.once()
            holding.cancel()
        return result


async def _work(converter: Converter, stopped: asyncio.Event) -> None:
    database = converter.state.database
    async with asyncio.TaskGroup() as group:
        standing_by = group.create_task(converter.rounds.stand_by())
        has_turn = await database.begin(stopped)
        standing_by.cancel()
        if has_turn:
            # From now on: reading lists can take longer than the turn lasts unused.
            group.create_task(database.hold())
            await converter.rounds.begin()
            await converter.rounds.run(converter.hints)
