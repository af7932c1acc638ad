"""The converter's HTTP application: webhooks, and what whoever watches it asks."""

from collections.abc import Iterable
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from services.common.times import time_text
from services.converter.errors import StateError
from services.converter.metrics import Metrics
from services.converter.rounds.rounds import Rounds
from services.converter.state.state import State

__all__ = ["create_app"]

_LATE: Final = 100
"""Most images that the status names."""


def create_app(*, state: State, rounds: Rounds, metrics: Metrics, routes: Iterable[web.RouteDef]) -> web.Application:
    """Build the application.

    Parameters
    ----------
    state, rounds, metrics
        What is told of.
    routes
        Those of webhooks.
    """
    handler = _Handler(state=state, rounds=rounds, metrics=metrics)
    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", handler.healthz),
            web.get("/metrics", handler.metrics),
            web.get("/v1/status", handler.status),
            *routes,
        ]
    )
    return app


class _Handler:
    """Says how the converter is."""

    def __init__(self, *, state: State, rounds: Rounds, metrics: Metrics) -> None:
        self._state = state
        self._rounds = rounds
        self._metrics = metrics

    async def healthz(self, _request: web.Request) -> web.Response:
        """Say whether the state can be read, without which nothing goes on."""
        try:
            await self._state.summary()
        except StateError as error:
            return web.json_response({"status": str(error)}, status=503)
        return web.json_response({"status": "alive"})

    async def metrics(self, _request: web.Request) -> web.Response:
        """Give the metrics in Prometheus' text format."""
        body = self._metrics.render(await self._state.summary())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def status(self, _request: web.Request) -> web.Response:
        """Tell what is not as the lists wish it, and what is due to be removed."""
        summary = await self._state.summary()
        late = await self._state.copies.late(_LATE)
        records = await self._state.wishes.every()
        document = {
            "works": self._rounds.works,
            "lists": {"incomplete": sorted(self._rounds.plan.incomplete)},
            "wishes": {
                "total": len(list(self._rounds.plan.every())),
                "failing": [
                    {"origin": str(planned.wish.origin), "reason": record.reason, "failures": record.failures}
                    for planned in self._rounds.plan.every()
                    if (record := records.get(planned.key)) is not None and record.reason is not None
                ][:_LATE],
            },
            "images": {
                "total": summary.images,
                "copies": summary.copies,
                "missing": summary.missing,
                "dropped": summary.dropped,
                "late": [
                    {
                        "name": each.name,
                        "repository": each.repository,
                        "state": each.state,
                        "since": time_text(each.wanted_at),
                        "attempts": each.attempts,
                        "reason": each.reason,
                    }
                    for each in late
                ],
            },
            "thin_images": {"waiting": summary.thin_waiting, "failing": summary.thin_failing},
            "removals_due": [
                {"name": each.name, "repository": each.repository, "why": each.why}
                for each in (await self._rounds.remover.due())[:_LATE]
            ],
        }
        return web.json_response(document)
