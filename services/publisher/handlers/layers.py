"""`/v1/layers`: what became of layers, and trying them again."""

from typing import Final

from aiohttp import web

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.times import time_text
from services.publisher.handlers.answers import answer, failure
from services.publisher.handlers.claimants import claimants
from services.publisher.handlers.selection import Order, read_listing
from services.publisher.handlers.token import TokenCheck
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerRecord, LayerState
from services.publisher.pipeline.claims import Claims

__all__ = ["LayersHandler"]

_PAGE: Final = 100
_MAX_PAGE: Final = 1000


class LayersHandler:
    """Shows the journal. Reading is open to whoever can reach the address; a retry needs the token."""

    def __init__(self, *, token: TokenCheck, journal: Journal, claims: Claims) -> None:
        self._token = token
        self._journal = journal
        self._claims = claims

    def routes(self) -> list[web.RouteDef]:
        """Give the routes."""
        return [
            web.get("/v1/layers", self.list),
            web.get("/v1/layers/{digest}", self.get),
            web.post("/v1/layers/retry", self.retry_failed),
            web.post("/v1/layers/{digest}/retry", self.retry),
        ]

    async def get(self, request: web.Request) -> web.Response:
        """Show one layer."""
        try:
            record = await self._journal.get(Digest(request.match_info["digest"]))
        except InvalidValueError as error:
            return failure(400, str(error))
        return await self._shown(record)

    async def list(self, request: web.Request) -> web.Response:
        """Show layers page by page; see `read_listing` for what the query may say."""
        try:
            listing = read_listing(request.query, page=_PAGE, most=_MAX_PAGE)
        except InvalidValueError as error:
            return failure(400, str(error))
        records = await listing.read(self._journal)
        following = None
        if len(records) == listing.limit:
            place = records[-1].digest if listing.order is Order.DIGEST else str(records[-1].moment)
            following = str(request.rel_url.update_query(after=place))
        names = await claimants(self._journal.publishers, records)
        documents = [_document(record, names.get(record.claimed_by)) for record in records]
        return answer({"layers": documents, "next": following})

    async def retry(self, request: web.Request) -> web.Response:
        """Try a failed layer again now, or make sure that a published one still is in the repository."""
        self._token.demand(request)
        try:
            record = await self._journal.restart(Digest(request.match_info["digest"]))
        except InvalidValueError as error:
            return failure(400, str(error))
        self._claims.wake()
        return await self._shown(record, status=202)

    async def retry_failed(self, request: web.Request) -> web.Response:
        """Try every failed layer again now, refused ones as well."""
        self._token.demand(request)
        restarted = await self._journal.restart_failed()
        self._claims.wake()
        return answer({"restarted": restarted}, status=202)

    async def _shown(self, record: LayerRecord | None, *, status: int = 200) -> web.Response:
        if record is None:
            return failure(404, "no layer of this digest has been announced or found in the bucket")
        names = await claimants(self._journal.publishers, [record])
        return answer(_document(record, names.get(record.claimed_by)), status=status)


def _document(record: LayerRecord, publisher: str | None) -> dict[str, object]:
    failed = record.state is LayerState.FAILED
    return {
        "digest": record.digest,
        "state": record.state,
        "publisher": publisher,
        "revision": record.revision,
        "reason": record.reason,
        "retryable": record.retryable if failed else None,
        "next_attempt": time_text(record.due) if failed and record.retryable else None,
        "attempts": record.attempts,
        "source": record.source,
        "archive_size": record.archive_size,
        "tree_size": record.tree_size,
        "notes": record.notes,
        "announced_at": time_text(record.announced_at),
        "updated_at": time_text(record.updated_at),
    }
