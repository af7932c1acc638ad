"""`/v1/hints/ENDPOINT` for webhooks, and `/v1/sync` for whoever knows that an image has been pushed.

Answers: 202 once the hints are on the disk, also where nothing follows from them; 400 for what is no JSON, 422 for JSON
that is not of the endpoint's kind, 401, 403 (sync: a name that is not the project's), 408, 413; 503 with Retry-After
while the journal is full, fails, or is slower than senders wait, so that those who repeat do.

No address of a request is ever logged or repeated: some kinds have their secret there.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.common.request_body import BodyError, read_body
from services.converter.hints.authentication import shown_in_header, shown_in_url, signed
from services.converter.hints.dialects.parse import Kind, parse_object, read_delivery
from services.converter.hints.endpoints import Endpoint, Endpoints
from services.converter.hints.errors import (
    EndpointsError,
    HintJournalError,
    NotJsonError,
    PayloadError,
)
from services.converter.hints.metrics import HintMetrics
from services.converter.hints.model import Event, Reading, read_hint
from services.converter.hints.recorder import PromptRecorder
from services.converter.model import Hint

__all__ = ["HintsHandler", "Matcher"]

_log = structlog.get_logger(__name__)

_NOBODY: Final = "-"
"""Stands in metrics for an endpoint that there is not: names from outside would be without number."""
_RETRY_AFTER: Final = "10"


_Taken = tuple[str, Mapping[str, object]]
"""The endpoint's name, and the document of the answer."""
_Take = Callable[[web.Request], Awaitable[_Taken]]


class Matcher(Protocol):
    """Knows what is wished."""

    def matches(self, hint: Hint) -> bool:
        """Whether a wish may be about what a hint is about."""
        ...


class _SyncRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    image: str


class _RefusedError(Exception):
    """The request is not taken."""

    def __init__(self, status: int, text: str, endpoint: str = _NOBODY) -> None:
        super().__init__(text)
        self.status = status
        self.endpoint = endpoint


class HintsHandler:
    """Takes hints.

    Parameters
    ----------
    endpoints
        Who may send some.
    recorder
        Writes them down.
    matcher
        Knows which of them matter.
    metrics
        Counts them.
    limit
        Largest body, in bytes.
    """

    def __init__(
        self, *, endpoints: Endpoints, recorder: PromptRecorder, matcher: Matcher, metrics: HintMetrics, limit: int
    ) -> None:
        self._endpoints = endpoints
        self._recorder = recorder
        self._matcher = matcher
        self._metrics = metrics
        self._limit = limit

    def routes(self) -> list[web.RouteDef]:
        """Give the routes."""
        return [
            web.post("/v1/hints/{endpoint}", self.deliver),
            web.post("/v1/hints/{endpoint}/{secret}", self.deliver),
            web.post("/v1/sync", self.sync),
        ]

    async def deliver(self, request: web.Request) -> web.Response:
        """Take a webhook."""
        return await self._answered(self._deliver, request)

    async def sync(self, request: web.Request) -> web.Response:
        """Take a request to look at one image."""
        return await self._answered(self._sync, request)

    async def _answered(self, take: _Take, request: web.Request) -> web.Response:
        headers: dict[str, str] = {}
        try:
            endpoint, document = await take(request)
            status = 202
        except _RefusedError as error:
            endpoint, status, document = error.endpoint, error.status, {"error": str(error)}
            if status == 401:  # noqa: PLR2004
                headers["WWW-Authenticate"] = "Bearer"
            _log.warning("hints refused", endpoint=endpoint, status=status, reason=str(error))
        except (HintJournalError, EndpointsError) as error:
            endpoint, status, document = _NOBODY, 503, {"error": str(error)}
            headers["Retry-After"] = _RETRY_AFTER
            _log.error("hints cannot be taken", reason=str(error))
        except Exception:  # noqa: BLE001 - whoever answered a defect elsewhere might log the address
            endpoint, status, document = _NOBODY, 500, {"error": "the converter has a defect, which its log describes"}
            _log.exception("hints failed unexpectedly")
        self._metrics.requests.labels(endpoint, str(status)).inc()
        return web.json_response(document, status=status, headers=headers)

    async def _deliver(self, request: web.Request) -> _Taken:
        name = request.match_info["endpoint"]
        endpoint = (await self._endpoints.current()).get(name)
        if endpoint is not None and endpoint.kind is Kind.SYNC:
            endpoint = None
        body = None
        if endpoint is not None and endpoint.kind is Kind.GITHUB:
            body = await self._body(request, endpoint.name)
            passes = signed(endpoint, request.headers, body)
        else:
            urls = request.match_info.get("secret", ""), request.query.get("token", "")
            shown = shown_in_header(endpoint, request.headers.get("Authorization", ""))
            passes = shown_in_url(endpoint, *urls) or shown
        if endpoint is None or not passes:
            known = _NOBODY if endpoint is None else endpoint.name
            raise _RefusedError(401, "there is no such endpoint, or its secret is missing or wrong", known)
        if body is None:
            body = await self._body(request, endpoint.name)
        try:
            reading = read_delivery(endpoint.kind, body, registry=endpoint.registry, headers=request.headers)
        except PayloadError as error:
            raise _RefusedError(400 if isinstance(error, NotJsonError) else 422, str(error), endpoint.name) from None
        return endpoint.name, await self._take(endpoint, reading)

    async def _sync(self, request: web.Request) -> _Taken:
        authorization = request.headers.get("Authorization", "")
        # Each is compared, so that the time does not tell which came close.
        shown = [
            endpoint
            for endpoint in (await self._endpoints.current()).values()
            if shown_in_header(endpoint, authorization) and endpoint.kind is Kind.SYNC
        ]
        if not shown:
            raise _RefusedError(401, "the token is missing or wrong")
        name = shown[0].name
        body = await self._body(request, name)
        try:
            image = _SyncRequest.model_validate(parse_object(body)).image
            hint = read_hint(*_image_of(image))
        except NotJsonError as error:
            raise _RefusedError(400, str(error), name) from None
        except ValidationError:
            raise _RefusedError(422, 'the body is {"image": "REGISTRY/REPOSITORY:TAG"}', name) from None
        except (PayloadError, InvalidValueError) as error:
            raise _RefusedError(422, str(error), name) from None
        if hint is None or hint.signed is not None:
            raise _RefusedError(422, "a tag of this form names a signature, which is no image", name)
        allowed = [endpoint for endpoint in shown if endpoint.covers(hint)]
        if not allowed:
            raise _RefusedError(403, f"{image} is none of the names that {name} may ask for", name)
        return name, await self._take(allowed[0], Reading(events=(Event(hint),)))

    async def _body(self, request: web.Request, endpoint: str) -> bytes:
        try:
            return await read_body(request, what="the body", limit=self._limit)
        except BodyError as error:
            raise _RefusedError(error.status, str(error), endpoint) from None

    async def _take(self, endpoint: Endpoint, reading: Reading) -> Mapping[str, int]:
        """Record what matters of a delivery; return how many hints of it came to what."""
        allowed = [event for event in reading.events if endpoint.covers(event.hint)]
        wished = [event for event in allowed if self._matcher.matches(event.hint)]
        outcome = {
            "taken": 0,
            "repeated": 0,
            "unmatched": len(allowed) - len(wished),
            "ignored": reading.ignored,
            "malformed": reading.malformed,
            "not_allowed": len(reading.events) - len(allowed),
        }
        if wished:
            recorded = await self._recorder.record(endpoint.name, wished)
            outcome |= {"taken": recorded.taken, "repeated": recorded.repeated}
        for word, count in outcome.items():
            if count:
                self._metrics.events.labels(endpoint.name, word).inc(count)
        if reading.malformed:
            _log.warning("events passed over", endpoint=endpoint.name, malformed=reading.malformed)
        return outcome


def _image_of(text: str) -> tuple[str, str, str | None]:
    """Return registry, repository and tag of what is to be looked at; without a tag it is all of them.

    Raises
    ------
    InvalidValueError
        It is no name of an image.
    """
    # A digest says what was pushed; which tags name it is the registry's to say.
    image, at, _ = text.partition("@")
    tagged = ":" in image.rpartition("/")[2]
    name = ImageName(image if tagged else f"{image}:any")
    if at:
        ImageName(text if not tagged else f"{image.rpartition(':')[0]}@{text.partition('@')[2]}")
    return name.registry, name.repository, name.version if tagged else None
