"""A publisher's interface for images, without a publisher: for tests of who asks, which say what is answered."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from harness.ports import free_ports
from services.common.image_outputs import outputs_document, read_outputs

__all__ = ["ImagePublisher"]

_OF_TAGS = "sha256:" + "d" * 64
"""What every tag stands for."""
_TIME = "2026-01-02T03:04:05.000+00:00"


@dataclass(slots=True)
class ImagePublisher:
    """What was asked, and what is answered; everything that is asked for is published at once unless it is held."""

    url: str = ""
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The documents of all images, by name."""
    requests: list[tuple[str, Any]] = field(default_factory=list)
    """Method and path of every request, and its body."""
    held: bool = False
    """Whether images stay `fetching`."""
    refused: dict[str, str] = field(default_factory=dict)
    """Images that fail, and why."""
    broken: int | None = None
    """A status that answers every request."""

    @classmethod
    @asynccontextmanager
    async def run(cls) -> AsyncIterator["ImagePublisher"]:
        """Listen on the loopback interface."""
        self = cls()
        app = web.Application(middlewares=[self._note], client_max_size=1 << 24)
        app.router.add_post("/v1/images", self._ask)
        app.router.add_post("/v1/images/checked", self._checked)
        app.router.add_get("/v1/images", self._list)
        app.router.add_get("/v1/images/{name:.+}", self._get)
        app.router.add_delete("/v1/images/{name:.+}", self._delete)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        (port,) = free_ports(1)
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    def asked(self) -> list[dict[str, Any]]:
        """Return the bodies of the requests for images."""
        return [body for line, body in self.requests if line == "POST /v1/images"]

    def checked(self) -> list[str]:
        """Return the names that were said to be unchanged."""
        bodies = [body for line, body in self.requests if line == "POST /v1/images/checked"]
        return [image["name"] for body in bodies for image in body["images"]]

    def removed(self) -> list[str]:
        """Return the names that were to be removed."""
        return [line.removeprefix("DELETE /v1/images/") for line, _ in self.requests if line.startswith("DELETE ")]

    def release(self) -> None:
        """Publish what was held."""
        self.held = False
        for document in self.images.values():
            self._publish(document)

    def _publish(self, document: dict[str, Any]) -> None:
        if document["state"] == "fetching":
            document.update(state="published", published_digest=document["digest"], published_at=_TIME)

    @web.middleware
    async def _note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.requests.append((f"{request.method} {request.path}", body))
        if self.broken is not None:
            return web.json_response({"error": "made up"}, status=self.broken)
        return await handler(request)

    async def _ask(self, request: web.Request) -> web.Response:
        body = await request.json()
        name, former = body["name"], self.images.get(body["name"], {})
        digest = body.get("digest", _OF_TAGS)
        outputs = outputs_document(read_outputs(body.get("outputs", {})))
        if former.get("published_digest") == digest and former.get("outputs") == outputs:
            return web.json_response(former)
        document = self.images[name] = {
            "name": name,
            "reference": name,
            "digest": digest,
            "published_digest": former.get("published_digest"),
            "state": "fetching",
            "verified": body.get("verified"),
            "outputs": outputs,
            "layers": [{"digest": "c" * 64, "size": 7, "state": "published"}],
            "bytes_fetched": 5,
            "bytes_known": 7,
            "asked_at": _TIME,
            "updated_at": _TIME,
        }
        if name in self.refused:
            document.update(state="failed", reason=self.refused[name], retryable=False)
        elif not self.held:
            self._publish(document)
        return web.json_response(document, status=202)

    async def _checked(self, request: web.Request) -> web.Response:
        body = await request.json()
        published = {name: document.get("published_digest") for name, document in self.images.items()}
        unknown = [image["name"] for image in body["images"] if published.get(image["name"]) != image["digest"]]
        return web.json_response({"unknown": unknown})

    async def _list(self, request: web.Request) -> web.Response:
        state = request.query.get("state")
        images = [document for document in self.images.values() if state in (None, document["state"])]
        return web.json_response({"images": images, "next": None})

    async def _get(self, request: web.Request) -> web.Response:
        document = self.images.get(request.match_info["name"])
        if document is None:
            return web.json_response({"error": "no such image"}, status=404)
        return web.json_response(document)

    async def _delete(self, request: web.Request) -> web.Response:
        document = self.images.pop(request.match_info["name"], None)
        if document is None:
            return web.json_response({"error": "no such image"}, status=404)
        return web.json_response({**document, "state": "removing"}, status=202)
