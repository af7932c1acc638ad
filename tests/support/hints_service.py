"""What takes hints, as a program of its own that can be killed: `python -m tests.support.hints_service STATE FILE`.

Writes its address to standard output when it serves.
"""

import asyncio
import sys
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry

from services.converter.hints.factory import open_hints
from services.converter.hints.journal import HintJournal
from services.converter.hints.settings import HintsSettings
from tests.support.hints import Everything


async def _serve(state: Path, endpoints: Path) -> None:
    settings = HintsSettings(hints_endpoints=endpoints, hints_patience=60)
    journal = HintJournal(state / "hints.sqlite", limit=settings.hints_pending)
    async with open_hints(settings, journal=journal, matcher=Everything(), metrics=CollectorRegistry()) as hints:
        app = web.Application()
        app.add_routes(hints.routes)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print("http://{}:{}".format(*runner.addresses[0]), flush=True)  # noqa: T201 - for whoever has started it
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), Path(sys.argv[2])))
