"""`/v1/layers`: what became of layers, and trying one again."""

from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.publisher.handlers.answers import answer, failure
from services.publisher.handlers.token import TokenCheck
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerRecord, LayerState
from services.publisher.pipeline.pipeline import Pipeline

__all__ = ["LayersHandler"]

_PAGE: Final = 100
_MAX_PAGE: Final = 1000


class LayersHandler:
    """Shows the journal. Reading is open to whoever can reach the address; a retry needs the token."""

    def __init__(self, *, token: TokenCheck, journal: Journal, pipeline: Pipeline) -> None:
        self._token = token
        self._journal = journal
        self._pipeline = pipeline

    def routes(self) -> list[web.RouteDef]:
        """Give the routes."""
        return [
            web.get("/v1/layers", self.list),
            web.get("/v1/layers/{digest}", self.get),
            web.post("/v1/layers/{digest}/retry", self.retry),
        ]

    async def get(self, request: web.Request) -> web.Response:
        """Show one layer."""
        try:
            record = await self._journal.get(Digest(request.match_info["digest"]))
        except InvalidValueError as error:
            return failure(400, str(error))
        return _shown(record)

    async def list(self, request: web.Request) -> web.Response:
        """Show layers page by page, by their digests: `state`, `after` and `limit` in the query."""
        query = request.query
        try:
            state = LayerState(query["state"]) if "state" in query else None
            after = Digest(query["after"]) if "after" in query else ""
            limit = int(query.get("limit", _PAGE))
        except ValueError as error:
            return failure(400, f"{error}; state is one of {', '.join(LayerState)}")
        if not 1 <= limit <= _MAX_PAGE:
            return failure(400, f"limit is between 1 and {_MAX_PAGE}")
        records = await self._journal.page(state, after=after, limit=limit)
        following = None
        if len(records) == limit:
            following = str(request.rel_url.update_query(after=records[-1].digest))
        return answer({"layers": [_document(record) for record in records], "next": following})

    async def retry(self, request: web.Request) -> web.Response:
        """Try a failed layer again now, or make sure that a published one still is in the repository."""
        if not self._token.passes(request):
            return failure(401, "the token is missing or wrong", headers={"WWW-Authenticate": "Bearer"})
        try:
            record = await self._journal.restart(Digest(request.match_info["digest"]))
        except InvalidValueError as error:
            return failure(400, str(error))
        self._pipeline.wake()
        return _shown(record, status=202)


def _shown(record: LayerRecord | None, *, status: int = 200) -> web.Response:
    if record is None:
        return failure(404, "no layer of this digest has been announced or found in the bucket")
    return answer(_document(record), status=status)


def _document(record: LayerRecord) -> dict[str, object]:
    failed = record.state is LayerState.FAILED
    return {
        "digest": record.digest,
        "state": record.state,
        "revision": record.revision,
        "reason": record.reason,
        "retryable": record.retryable if failed else None,
        "next_attempt": _time(record.due) if failed and record.retryable else None,
        "attempts": record.attempts,
        "announced_at": _time(record.announced_at),
        "updated_at": _time(record.updated_at),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
