"""`/v1/status`, pausing and resuming, and a sweep at once."""

from typing import Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from services.common.times import time_text
from services.publisher.handlers.answers import answer
from services.publisher.handlers.document import read_document
from services.publisher.handlers.token import TokenCheck
from services.publisher.journal.publishers import PublisherRecord
from services.publisher.pipeline.gate import Gate
from services.publisher.pipeline.sweep import Sweep
from services.publisher.status.model import PublisherStatus
from services.publisher.status.publishers import standing_of
from services.publisher.status.reader import StatusReader

__all__ = ["StatusHandler", "status_document"]

_BODY_LIMIT: Final = 16 << 10


class _PauseRequest(BaseModel):
    """The body of a request to pause."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=500)


class StatusHandler:
    """Tells how the publisher is, and lets operators pause it; changes need the token."""

    def __init__(self, *, token: TokenCheck, status: StatusReader, gate: Gate, sweep: Sweep) -> None:
        self._token = token
        self._status = status
        self._gate = gate
        self._sweep = sweep

    def routes(self) -> list[web.RouteDef]:
        """Give the routes."""
        return [
            web.get("/v1/status", self.get),
            web.post("/v1/publishing/pause", self.pause),
            web.post("/v1/publishing/resume", self.resume),
            web.post("/v1/sweep", self.sweep),
        ]

    async def get(self, _request: web.Request) -> web.Response:
        """Show the status."""
        return await self._shown()

    async def pause(self, request: web.Request) -> web.Response:
        """Begin nothing new, for a `reason` in the body; a transaction that is under way is finished."""
        self._token.demand(request)
        wanted = await read_document(
            request, _PauseRequest, limit=_BODY_LIMIT, form='; the body is {"reason": TEXT} or empty'
        )
        await self._gate.close(wanted.reason.strip())
        return await self._shown()

    async def resume(self, request: web.Request) -> web.Response:
        """Go on."""
        self._token.demand(request)
        await self._gate.resume()
        return await self._shown()

    async def sweep(self, request: web.Request) -> web.Response:
        """Let a sweep begin; `/v1/status` tells when the one of the number in the answer has ended."""
        self._token.demand(request)
        return answer({"sweep": self._sweep.ask()}, status=202)

    async def _shown(self) -> web.Response:
        return answer(status_document(await self._status.read()))


def status_document(status: PublisherStatus) -> dict[str, object]:
    """Write the status as a document."""
    pause, transaction, sweep, check = status.pause, status.transaction, status.sweep, status.check
    return {
        "repository": status.repository,
        "paused": pause and {"since": time_text(pause.since), "reason": pause.reason},
        "waiting_for": status.waiting_for,
        "leads": status.leads,
        "publishers": [_publisher(record) for record in status.publishers.shown],
        "layers": {state.value: count for state, count in status.layers.counts.items()},
        "refused": status.layers.refused,
        "oldest_unpublished_seconds": round(status.oldest_age, 3),
        "images": {state.value: count for state, count in status.images.counts.items()},
        "refused_images": status.images.refused,
        "oldest_unpublished_image_seconds": round(status.oldest_image_age, 3),
        "transaction": transaction
        and {
            "since": time_text(transaction.since),
            "stage": transaction.stage,
            "layers": transaction.digests,
            "images": transaction.images,
            "added": transaction.added,
            "bytes": transaction.size,
        },
        "sweep": {
            "begun": sweep.begun,
            "ended": sweep.ended,
            "ended_at": None if sweep.ended_at is None else time_text(sweep.ended_at),
            "found": sweep.found,
            "error": sweep.error,
        },
        "check": check
        and {
            "ended_at": time_text(check.ended_at),
            "layers": check.layers,
            "images": check.images,
            "disagreements": check.disagreements,
            "error": check.error,
        },
        "trusted_until": None if status.trusted_until is None else time_text(status.trusted_until),
        "spool": {"used": status.spool_used, "limit": status.spool_limit},
        "disks": {name: disk and {"free": disk.free, "total": disk.total} for name, disk in status.disks.items()},
    }


def _publisher(record: PublisherRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "name": record.name,
        "standing": standing_of(record),
        "started_at": time_text(record.started_at),
        "seen_at": time_text(record.seen_at),
        "layers": record.layers,
        "images": record.images,
    }
