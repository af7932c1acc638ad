"""Requests to a publisher."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Final, Self

import aiohttp
from pydantic import BaseModel, SecretStr

from services.common.digest import Digest
from services.common.publisher_api.errors import NotKnownError, PublisherRefusedError, PublisherUnreachableError
from services.common.publisher_api.images import ImagesApi
from services.common.publisher_api.model import CheckSummary, Disagreement, Layer, LayerPage, Status
from services.common.publisher_api.requests import Requests, body_of, not_a_publisher, object_of, parse, refuse

__all__ = ["PublisherApi"]

_CHECK_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=10, sock_read=120)
"""A check says every second how far it is."""
_POLL_FIRST: Final = 0.1
_POLL_LAST: Final = 2.0
"""Seconds between two questions, at first and in the end: the interface has no events."""
_PATIENCE: Final = 60.0
"""How long a publisher may be unreachable while it is waited for, in seconds: it may be restarted."""


class PublisherApi:
    """Asks a publisher; a context manager that holds the connections.

    Every method raises `PublisherApiError`; its subclasses say what happened.

    Parameters
    ----------
    url
        Where the publisher is, `http(s)://HOST[:PORT]`.
    token
        What lets one change something; None if nothing is to be changed.
    """

    def __init__(self, *, url: str, token: SecretStr | None = None) -> None:
        self._requests = Requests(url=url, token=token)
        self.images = ImagesApi(self._requests)
        """What concerns images."""

    async def __aenter__(self) -> Self:
        await self._requests.__aenter__()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._requests.__aexit__(*failure)

    async def status(self) -> Status:
        """Ask how the publisher is."""
        return await self._requests.ask("GET", "/v1/status", Status)

    async def layer(self, digest: Digest) -> Layer | None:
        """Ask for a layer; None if the publisher has not heard of it."""
        try:
            return await self._requests.ask("GET", f"/v1/layers/{digest}", Layer)
        except NotKnownError:
            return None

    async def layers(self, query: Sequence[tuple[str, str]]) -> LayerPage:
        """Ask for a page of layers, by the names and values of the query."""
        return await self._requests.ask("GET", "/v1/layers", LayerPage, query=query)

    async def following(self, page: LayerPage) -> LayerPage | None:
        """Ask for the page after another one, if there is one."""
        if page.next is None or not page.next.startswith("/v1/layers?"):
            return None
        return await self._requests.ask("GET", page.next, LayerPage)

    async def retry(self, digest: Digest) -> Layer:
        """Have a layer tried again."""
        return await self._requests.ask("POST", f"/v1/layers/{digest}/retry", Layer)

    async def retry_failed(self) -> int:
        """Have every failed layer tried again; return how many there are."""
        answer = await self._requests.ask("POST", "/v1/layers/retry", _Restarted)
        return answer.restarted

    async def sweep(self) -> int:
        """Have the bucket swept; return the number that the sweep will have in the status."""
        answer = await self._requests.ask("POST", "/v1/sweep", _SweepNumber)
        return answer.sweep

    async def pause(self, reason: str) -> Status:
        """Have nothing new published."""
        return await self._requests.ask("POST", "/v1/publishing/pause", Status, body={"reason": reason})

    async def resume(self) -> Status:
        """Have publishing go on."""
        return await self._requests.ask("POST", "/v1/publishing/resume", Status)

    async def check(self, *, progress: Callable[[int], object]) -> AsyncGenerator[Disagreement | CheckSummary, None]:
        """Have repository, journal and bucket compared.

        Parameters
        ----------
        progress
            Told about every second how many layers have been compared.

        Yields
        ------
        Disagreement | CheckSummary
            Every disagreement when it is found, and the summary as the last one.
        """
        doing = self._requests.doing("POST", "/v1/check")
        async with self._requests.send("POST", "/v1/check", timeout=_CHECK_TIMEOUT) as response:
            if not response.ok:
                refuse(doing, response.status, await body_of(response))
            async for line in response.content:
                document = object_of(line)
                if document is None:
                    raise not_a_publisher(doing)
                if "error" in document:
                    raise PublisherRefusedError(f"the check could not be finished: {document['error']}")
                if "progress" in document:
                    progress(parse(_Progress, json.dumps(document["progress"]), doing).layers)
                elif "summary" in document:
                    yield parse(CheckSummary, json.dumps(document["summary"]), doing)
                    return
                else:
                    yield parse(Disagreement, line, doing)
        raise PublisherUnreachableError(f"{doing}: the answer has no end: was the publisher stopped? Check again")

    async def published(self, digest: Digest, *, report: Callable[[str], object]) -> None:
        """Wait until a layer is published; bound it with a time-out.

        Parameters
        ----------
        digest
            The layer.
        report
            Gets the layer's state whenever it is another one.

        Raises
        ------
        PublisherApiError
            The layer is refused, or the publisher does not answer.
        """
        known = ""

        async def done() -> bool:
            nonlocal known
            layer = await self.layer(digest)
            if layer is not None and layer.state != known:
                known = layer.state
                report(known)
            if layer is not None and layer.is_refused:
                raise PublisherRefusedError(
                    f"layer {digest} is not published: {layer.reason}: mend it, then `thinctl retry {digest}`"
                )
            return layer is not None and layer.is_published

        await self.wait(done)

    async def wait(self, done: Callable[[], Awaitable[bool]]) -> None:
        """Ask until something is so; a publisher that is restarted meanwhile is put up with.

        Parameters
        ----------
        done
            Asks, and tells whether it is so.
        """
        loop = asyncio.get_running_loop()
        pause, answered = _POLL_FIRST, loop.time()
        while True:
            try:
                if await done():
                    return
            except PublisherUnreachableError:
                if loop.time() - answered > _PATIENCE:
                    raise
            else:
                answered = loop.time()
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _POLL_LAST)


class _Restarted(BaseModel):
    restarted: int


class _SweepNumber(BaseModel):
    sweep: int


class _Progress(BaseModel):
    layers: int
