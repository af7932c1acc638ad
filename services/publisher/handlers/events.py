"""`/v1/events`: object stores announce layers here.

Answers: 204 once the layers are on the disk; 400 for what is no JSON, 422 for JSON that is no notification, 401, 413;
503 while the journal fails, so that a store that retries does. HEAD is how older MinIO releases see whether somebody
is there.
"""

import structlog
from aiohttp import web

from services.publisher.errors import JournalError, NotificationError, UnknownDialectError
from services.publisher.handlers.answers import failure
from services.publisher.handlers.token import TokenCheck
from services.publisher.journal.journal import Journal
from services.publisher.metrics import Metrics
from services.publisher.notification.parse import parse_notification
from services.publisher.pipeline.pipeline import Pipeline

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
        self, *, token: TokenCheck, journal: Journal, pipeline: Pipeline, metrics: Metrics, bucket: str, limit: int
    ) -> None:
        self._token = token
        self._journal = journal
        self._pipeline = pipeline
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
        if not self._token.passes(request):
            return self._refused(401, "the token is missing or wrong", headers={"WWW-Authenticate": "Bearer"})
        body = await self._body(request)
        if body is None:
            return self._refused(413, f"a notification has at most {self._limit} bytes")
        try:
            events = parse_notification(body, bucket=self._bucket)
        except UnknownDialectError as error:
            return self._refused(422, str(error))
        except NotificationError as error:
            return self._refused(400, str(error))
        try:
            fresh = await self._journal.announce([event.digest for event in events]) if events else 0
        except JournalError as error:
            _log.error("notification not recorded", reason=str(error))
            return self._refused(503, str(error), headers={"Retry-After": "5"})
        self._metrics.notifications.labels("recorded" if events else "ignored").inc()
        if fresh:
            self._pipeline.wake()
        return web.Response(status=204)

    async def _body(self, request: web.Request) -> bytes | None:
        if request.content_length is not None and request.content_length > self._limit:
            return None
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > self._limit:
                return None
        return bytes(body)

    def _refused(self, status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
        self._metrics.notifications.labels("refused").inc()
        _log.warning("notification refused", status=status, reason=text)
        return failure(status, text, headers=headers)
