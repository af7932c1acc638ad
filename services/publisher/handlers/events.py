"""`/v1/events`: object stores announce layers here.

Answers: 204 once the layers are on the disk; 400 for what is no JSON, 422 for JSON that is no notification, 401, 408,
or 413; 503 while the journal fails, so that a store that retries does. HEAD is how older MinIO releases see whether
somebody is there.
"""

from collections.abc import Mapping

import structlog
from aiohttp import web

from services.common.request_body import BodyError, read_body
from services.publisher.errors import JournalError, NotificationError, UnknownDialectError
from services.publisher.handlers.answers import failure
from services.publisher.handlers.token import TokenCheck
from services.publisher.metrics import Metrics
from services.publisher.notification.model import ObjectCreated
from services.publisher.notification.parse import parse_notification
from services.publisher.notification.recorder import Recorder
from services.publisher.pipeline.claims import Claims

__all__ = ["EventsHandler"]

_log = structlog.get_logger(__name__)


class EventsHandler:
    """Records what a notification announces, and only then answers.

    Parameters
    ----------
    bucket
        The bucket whose layers are meant.
    limit
        Largest body, in bytes.
    """

    def __init__(
        self, *, token: TokenCheck, recorder: Recorder, claims: Claims, metrics: Metrics, bucket: str, limit: int
    ) -> None:
        self._token = token
        self._recorder = recorder
        self._claims = claims
        self._metrics = metrics
        self._bucket = bucket
        self._limit = limit

    def routes(self) -> list[web.RouteDef]:
        """Give the routes."""
        return [web.post("/v1/events", self.post), web.head("/v1/events", self.head)]

    async def head(self, request: web.Request) -> web.Response:
        """Say whether the token is right."""
        return web.Response(status=204 if self._token.passes(request) else 401)

    async def post(self, request: web.Request) -> web.Response:
        """Take a notification."""
        try:
            events = await self._read(request)
            fresh = await self._recorder.record(event.digest for event in events) if events else 0
        except _RefusalError as refusal:
            return self._refused(refusal.status, str(refusal), refusal.headers)
        except JournalError as error:
            return self._refused(503, str(error), {"Retry-After": "5"})
        self._metrics.notifications.labels("recorded" if events else "ignored").inc()
        if fresh:
            self._claims.wake()
        return web.Response(status=204)

    async def _read(self, request: web.Request) -> tuple[ObjectCreated, ...]:
        if not self._token.passes(request):
            raise _RefusalError(401, "the token is missing or wrong", {"WWW-Authenticate": "Bearer"})
        try:
            body = await read_body(request, what="a notification", limit=self._limit)
            return parse_notification(body, bucket=self._bucket)
        except BodyError as error:
            raise _RefusalError(error.status, str(error)) from None
        except UnknownDialectError as error:
            raise _RefusalError(422, str(error)) from None
        except NotificationError as error:
            raise _RefusalError(400, str(error)) from None

    def _refused(self, status: int, text: str, headers: Mapping[str, str]) -> web.Response:
        self._metrics.notifications.labels("refused").inc()
        _log.warning("notification refused", status=status, reason=text)
        return failure(status, text, headers=headers)


class _RefusalError(Exception):
    """The request is not a notification that is taken."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers or {}
