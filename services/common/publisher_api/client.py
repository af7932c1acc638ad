"""Requests to a publisher."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, NoReturn, Self, TypeVar

import aiohttp
from pydantic import BaseModel, SecretStr, ValidationError
from yarl import URL

from services.common.digest import Digest
from services.common.proxies import proxy_for
from services.common.publisher_api.errors import (
    NoSuchLayerError,
    PublisherRefusedError,
    PublisherTokenError,
    PublisherUnreachableError,
)
from services.common.publisher_api.model import CheckSummary, Disagreement, Layer, LayerPage, Status

__all__ = ["PublisherApi"]

_Model = TypeVar("_Model", bound=BaseModel)

_ANSWER_LIMIT: Final = 4 << 20
"""Largest answer that is read, in bytes: a thousand layers with a reason of a page each."""
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, connect=10)
_CHECK_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=10, sock_read=120)
"""A check says every second how far it is."""
_POLL_FIRST: Final = 0.1
_POLL_LAST: Final = 2.0
"""Seconds between two questions, at first and in the end: the interface has no events."""
_PATIENCE: Final = 60.0
"""How long a publisher may be unreachable while it is waited for, in seconds: it may be restarted."""
_UNAUTHORIZED: Final = 401
_MISSING: Final = 404


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
        self._url = url.rstrip("/")
        self._token = token

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        return self

    async def __aexit__(self, *_failure: object) -> None:
        await self._session.close()

    async def status(self) -> Status:
        """Ask how the publisher is."""
        return await self._ask("GET", "/v1/status", Status)

    async def layer(self, digest: Digest) -> Layer | None:
        """Ask for a layer; None if the publisher has not heard of it."""
        try:
            return await self._ask("GET", f"/v1/layers/{digest}", Layer)
        except NoSuchLayerError:
            return None

    async def layers(self, query: Sequence[tuple[str, str]]) -> LayerPage:
        """Ask for a page of layers, by the names and values of the query."""
        return await self._ask("GET", "/v1/layers", LayerPage, query=query)

    async def following(self, page: LayerPage) -> LayerPage | None:
        """Ask for the page after another one, if there is one."""
        if page.next is None or not page.next.startswith("/v1/layers?"):
            return None
        return await self._ask("GET", page.next, LayerPage)

    async def retry(self, digest: Digest) -> Layer:
        """Have a layer tried again."""
        return await self._ask("POST", f"/v1/layers/{digest}/retry", Layer)

    async def retry_failed(self) -> int:
        """Have every failed layer tried again; return how many there are."""
        answer = await self._ask("POST", "/v1/layers/retry", _Restarted)
        return answer.restarted

    async def sweep(self) -> int:
        """Have the bucket swept; return the number that the sweep will have in the status."""
        answer = await self._ask("POST", "/v1/sweep", _SweepNumber)
        return answer.sweep

    async def pause(self, reason: str) -> Status:
        """Have nothing new published."""
        return await self._ask("POST", "/v1/publishing/pause", Status, body={"reason": reason})

    async def resume(self) -> Status:
        """Have publishing go on."""
        return await self._ask("POST", "/v1/publishing/resume", Status)

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
        doing = f"POST {self._url}/v1/check"
        async with self._request("POST", "/v1/check", timeout=_CHECK_TIMEOUT) as response:
            if not response.ok:
                _refuse(doing, response.status, await _body(response))
            async for line in response.content:
                document = _object(line)
                if document is None:
                    raise _not_a_publisher(doing)
                if "error" in document:
                    raise PublisherRefusedError(f"the check could not be finished: {document['error']}")
                if "progress" in document:
                    progress(_parse(_Progress, json.dumps(document["progress"]), doing).layers)
                elif "summary" in document:
                    yield _parse(CheckSummary, json.dumps(document["summary"]), doing)
                    return
                else:
                    yield _parse(Disagreement, line, doing)
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

    async def _ask(
        self,
        method: str,
        path: str,
        model: type[_Model],
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Mapping[str, object] | None = None,
    ) -> _Model:
        doing = f"{method} {self._url}{path}"
        async with self._request(method, path, query=query, body=body) as response:
            content = await _body(response)
            if not response.ok:
                _refuse(doing, response.status, content)
        return _parse(model, content, doing)

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Mapping[str, object] | None = None,
        timeout: aiohttp.ClientTimeout = _TIMEOUT,  # noqa: ASYNC109 - a bound of each step, which asyncio's is not
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        headers = {}
        if method != "GET" and self._token is not None:
            token = self._token.get_secret_value()
            # One of two words is a whole header, as the publisher has it.
            headers["Authorization"] = token if " " in token else f"Bearer {token}"
        url = f"{self._url}{path}"
        try:
            async with self._session.request(
                method,
                url,
                params=query or None,
                json=body,
                headers=headers,
                timeout=timeout,
                proxy=proxy_for(URL(url)),
                # The token goes where it was meant to, and nowhere else.
                allow_redirects=False,
            ) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            text = str(error) or type(error).__name__
            raise PublisherUnreachableError(f"{method} {url}: {text}: is it up, and is --publisher right?") from None


class _Restarted(BaseModel):
    restarted: int


class _SweepNumber(BaseModel):
    sweep: int


class _Progress(BaseModel):
    layers: int


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _ANSWER_LIMIT:
            raise ValueError(f"the answer has more than {_ANSWER_LIMIT} bytes")
    return bytes(body)


def _refuse(doing: str, status: int, content: bytes) -> NoReturn:
    """Raise what an answer that is none means."""
    document = _object(content)
    if document is None or "error" not in document:
        raise PublisherUnreachableError(
            f"{doing}: it answers with HTTP {status}: is --publisher the URL of a publisher?"
        )
    text = str(document["error"])
    if status == _UNAUTHORIZED:
        raise PublisherTokenError(f"{text}: name the file that holds the publisher's token, see --token-file")
    if status == _MISSING:
        raise NoSuchLayerError(text)
    raise PublisherRefusedError(f"{doing}: {text}")


def _object(content: bytes) -> dict[str, object] | None:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _parse(model: type[_Model], content: str | bytes, doing: str) -> _Model:
    try:
        return model.model_validate_json(content)
    except ValidationError:
        raise _not_a_publisher(doing) from None


def _not_a_publisher(doing: str) -> PublisherUnreachableError:
    return PublisherUnreachableError(f"{doing}: the answer is not a publisher's: is --publisher right?")
