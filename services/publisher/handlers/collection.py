"""`/v1/collection`: taking layers out that no image names any more, and what would be taken out."""

from typing import Annotated, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.common.digest import Digest
from services.common.object_store.errors import ObjectStoreError
from services.common.publisher_api.image_model import OciDigestField
from services.common.request_body import BodyError, read_body
from services.common.times import time_text
from services.publisher.collection.collector import Collection, CollectionRefusedError, LayerCollector
from services.publisher.handlers.answers import answer
from services.publisher.handlers.refusal import RequestRefusedError
from services.publisher.handlers.token import TokenCheck
from services.publisher.journal.unnamed import UnnamedJournal

__all__ = ["CollectionHandler"]

_LIMIT: Final = 128 << 10
"""Largest body, in bytes."""
_COMMITS: Final = 1000


class _Request(BaseModel):
    """The body of a request to collect."""

    model_config = ConfigDict(extra="forbid")

    dry_run: bool
    commits: Annotated[list[OciDigestField], Field(max_length=_COMMITS)] = []
    """Layers of commits that may go as well."""


class CollectionHandler:
    """Collects for whoever has the publisher's token, and shows what the last collection did to everybody."""

    def __init__(self, *, token: TokenCheck, collector: LayerCollector, journal: UnnamedJournal) -> None:
        self._token = token
        self._collector = collector
        self._journal = journal

    def routes(self) -> list[web.RouteDef]:
        """Give the routes."""
        return [web.get("/v1/collection", self.get), web.post("/v1/collection", self.post)]

    async def get(self, _request: web.Request) -> web.Response:
        """Show the rules, how much is named by nothing, and the last collection since the publisher was started."""
        rules, last = self._collector.rules, self._collector.last
        unnamed = await self._journal.summary()
        return answer(
            {
                "after": rules.after,
                "limit": rules.limit,
                "interval": rules.interval,
                "unnamed": {"layers": unnamed.layers, "bytes": unnamed.size},
                "last": None if last is None else _document(last),
            }
        )

    async def post(self, request: web.Request) -> web.Response:
        """Collect, or tell what would go; 409 while nothing can be collected."""
        self._token.demand(request)
        try:
            body = await read_body(request, what="the request", limit=_LIMIT)
            wanted = _Request.model_validate_json(body)
        except BodyError as error:
            raise RequestRefusedError(error.status, str(error)) from error
        except ValidationError as error:
            raise RequestRefusedError(
                400, 'the body is not {"dry_run": true} or {"dry_run": false}, perhaps with "commits": ["sha256:..."]'
            ) from error
        commits = [Digest(digest) for digest in wanted.commits]
        try:
            return answer(_document(await self._collector.collect(dry_run=wanted.dry_run, commits=commits)))
        except CollectionRefusedError as error:
            raise RequestRefusedError(409, str(error)) from error
        except ObjectStoreError as error:
            raise RequestRefusedError(503, f"nothing has been collected: {error}") from error


def _document(collection: Collection) -> dict[str, object]:
    return {
        "dry_run": collection.dry_run,
        "at": time_text(collection.at),
        "revision": collection.revision,
        "layers": [
            {"digest": layer.digest, "size": layer.size, "named_last": time_text(layer.named_last)}
            for layer in collection.layers
        ],
        "flats": [{"digest": flat.config, "named_last": time_text(flat.named_last)} for flat in collection.flats],
        "kept": [{"digest": digest, "reason": reason} for digest, reason in collection.kept.items()],
    }
