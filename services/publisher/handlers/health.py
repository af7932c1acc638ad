"""`/healthz`, `/readyz` and `/metrics`, for whoever watches the publisher."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from services.common.errors import SuiteError
from services.publisher.handlers.answers import answer
from services.publisher.metrics import Metrics
from services.publisher.status.model import PublisherStatus
from services.publisher.status.reader import StatusReader

__all__ = ["Health", "HealthHandler"]

_log = structlog.get_logger(__name__)

_PATIENCE: Final = 10
"""Seconds that one check may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is asked whether the publisher is ready."""

    checks: dict[str, Callable[[], Awaitable[None]]]
    """What must be usable for that, by name; a check raises where it is not."""
    warnings: dict[str, Callable[[], str | None]] = field(default_factory=dict)
    """What will not be for ever, by name; each says what to do, or None."""
    leads: Callable[[], bool]
    """Tells whether it is this publisher's turn. One that stands by is ready: it takes what is announced or asked."""


class HealthHandler:
    """Says whether the publisher lives, whether it can work, and what it has done."""

    def __init__(self, *, health: Health, status: StatusReader, metrics: Metrics) -> None:
        self._health = health
        self._status = status
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        """Give the routes."""
        return [
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get("/metrics", self.metrics),
        ]

    async def healthz(self, _request: web.Request) -> web.Response:
        """Answer, which is all there is to it."""
        return answer({"status": "alive"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """Say of everything that the publisher needs whether it can be used, and what keeps it from publishing."""
        checks, warnings = self._health.checks, self._health.warnings
        status = list[PublisherStatus]()

        async def read_status() -> None:
            status.append(await self._status.read())

        *found, unread = await asyncio.gather(*map(_outcome, (*checks.values(), read_status)))
        results = dict(zip(checks, found, strict=True))
        ready = unread is None and not any(results.values())
        document = {
            "ready": ready,
            "leads": self._health.leads(),
            "checks": {name: problem or "ok" for name, problem in results.items()},
            "paused": status[0].pause is not None if unread is None else None,
            "waiting_for": status[0].waiting_for if unread is None else f"the journal: {unread}",
            "warnings": {name: text for name, warning in warnings.items() if (text := warning()) is not None},
        }
        return answer(document, status=200 if ready else 503)

    async def metrics(self, _request: web.Request) -> web.Response:
        """Give the metrics in Prometheus' text format."""
        body = self._metrics.render(await self._status.read())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _outcome(check: Callable[[], Awaitable[None]]) -> str | None:
    """Return what keeps something from being used, or None.

    What does not answer may not let itself be cancelled soon either: a database is asked to cancel, and waited for.
    """
    task = asyncio.ensure_future(check())
    try:
        await asyncio.wait([task], timeout=_PATIENCE)
        if not task.done():
            return f"no answer within {_PATIENCE} s"
        task.result()
    except SuiteError as error:
        return str(error)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_forget)
    return None


def _forget(check: "asyncio.Future[None]") -> None:
    """Take note of how a check ended that nobody waits for."""
    if not check.cancelled() and (failure := check.exception()) is not None:
        _log.debug("check ended late", reason=str(failure))
