"""The converter as a process: the daemon, and one round."""

import asyncio
import signal

import structlog
from aiohttp import web

from services.common.readiness import announce_ready
from services.converter.factory import Converter, build_converter
from services.converter.rounds.rounds import OnceResult
from services.converter.settings import ConverterSettings
from services.registry.options import RegistryOptions

__all__ = ["run_forever", "run_once"]

_log = structlog.get_logger(__name__)


async def run_forever(settings: ConverterSettings, options: RegistryOptions) -> None:
    """Keep repositories up to date until SIGTERM or SIGINT.

    Raises
    ------
    SuiteError
        The converter cannot be built, or its state failed.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with build_converter(settings, options) as converter, asyncio.TaskGroup() as group:
        work = group.create_task(converter.rounds.run(converter.hints))
        await _listen(converter, settings, stopped)
        work.cancel()


async def run_once(settings: ConverterSettings, options: RegistryOptions) -> OnceResult:
    """Look at everything once, and see it through; raises as `run_forever`."""
    async with build_converter(settings, options) as converter:
        return await converter.rounds.once()


async def _listen(converter: Converter, settings: ConverterSettings, stopped: asyncio.Event) -> None:
    """Serve requests until told to stop; the ones under way are finished."""
    # Without an access log: some senders of webhooks have their secret in the address.
    runner = web.AppRunner(converter.app, access_log=None, shutdown_timeout=5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port)
        await site.start()
        _log.info("listening", addresses=[":".join(map(str, address[:2])) for address in runner.addresses])
        announce_ready()
        await stopped.wait()
        _log.info("stopping")
    finally:
        await runner.cleanup()
