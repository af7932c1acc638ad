"""`/healthz` and `/metrics` of a front end, for whoever watches the node."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from services.common.listen_address import ListenAddress, listening
from services.node.metrics import NodeMetrics
from services.node.state import NodeState

__all__ = ["Monitoring"]

_log = structlog.get_logger(__name__)

_SHUTDOWN_TIMEOUT: Final = 1
"""Seconds for requests to end when the program does."""


class Monitoring:
    """Says whether a front end lives, and what it has done.

    Parameters
    ----------
    metrics
        What it counts.
    state
        Tells how the node is; None as long as no engine is served.
    """

    def __init__(self, *, metrics: NodeMetrics, state: Callable[[], Awaitable[NodeState | None]]) -> None:
        self._metrics = metrics
        self._state = state

    @asynccontextmanager
    async def serve(self, address: str, *, setting: str) -> AsyncIterator[None]:
        """Answer for as long as the context lasts.

        Parameters
        ----------
        address
            Where, as of `ListenAddress`.
        setting
            The setting that says so, for messages.

        Raises
        ------
        SocketError
            Another process listens there, or it cannot be done.
        """
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/metrics", self._show_metrics)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT)
        with listening(ListenAddress(address), setting=setting) as listener:
            await runner.setup()
            try:
                await web.SockSite(runner, listener).start()
                _log.info("monitored", address=address)
                yield
            finally:
                await runner.cleanup()

    async def _healthz(self, _request: web.Request) -> web.Response:
        """Answer, which is all there is to it: a front end whose repositories hang lives, and serves all others."""
        state = await self._state()
        document: dict[str, object] = {"status": "alive", "initialised": state is not None}
        if state is not None:
            document["local_copies"] = state.copies
            document["repositories"] = {
                one.name: {"users": one.users, "mounted": one.mounted, "hung_lookups": one.hung}
                for one in state.repositories
            }
        return web.json_response(document)

    async def _show_metrics(self, _request: web.Request) -> web.Response:
        """Give the metrics in Prometheus' text format."""
        body = self._metrics.render(await self._state())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
