"""Sends requests to a publisher, and says what its answers mean."""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, NoReturn, Self, TypeVar

import aiohttp
from pydantic import BaseModel, SecretStr, ValidationError
from yarl import URL

from services.common.proxies import proxy_for
from services.common.publisher_api.errors import (
    NotKnownError,
    PublisherRefusedError,
    PublisherTokenError,
    PublisherUnreachableError,
)

__all__ = ["Requests", "body_of", "not_a_publisher", "object_of", "parse", "refuse"]

_Model = TypeVar("_Model", bound=BaseModel)

_ANSWER_LIMIT: Final = 4 << 20
"""Largest answer that is read, in bytes: a thousand layers with a reason of a page each."""
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, connect=10)
_UNAUTHORIZED: Final = 401
_MISSING: Final = 404


class Requests:
    """Sends requests; a context manager that holds the connections.

    Parameters
    ----------
    url
        Where the publisher is, `http(s)://HOST[:PORT]`.
    token
        What lets one change something; None if nothing is to be changed.
    """

    def __init__(self, *, url: str, token: SecretStr | None) -> None:
        self._url = url.rstrip("/")
        self._token = token

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        return self

    async def __aexit__(self, *_failure: object) -> None:
        await self._session.close()

    def doing(self, method: str, path: str) -> str:
        """Say what a request is, for errors."""
        return f"{method} {self._url}{path}"

    async def ask(
        self,
        method: str,
        path: str,
        model: type[_Model],
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Mapping[str, object] | None = None,
    ) -> _Model:
        """Send a request, and read the document that is the answer.

        Raises
        ------
        NotKnownError
            The publisher has not heard of what is asked for.
        PublisherApiError
            It does not answer, or refuses.
        """
        doing = self.doing(method, path)
        async with self.send(method, path, query=query, body=body) as response:
            content = await body_of(response)
            if not response.ok:
                refuse(doing, response.status, content)
        return parse(model, content, doing)

    @asynccontextmanager
    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Mapping[str, object] | None = None,
        timeout: aiohttp.ClientTimeout = _TIMEOUT,  # noqa: ASYNC109 - a bound of each step, which asyncio's is not
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Send a request, and wait for the head of its answer, whatever its status is."""
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


async def body_of(response: aiohttp.ClientResponse) -> bytes:
    """Return the whole body of an answer.

    Raises
    ------
    ValueError
        It has more bytes than any honest one.
    """
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _ANSWER_LIMIT:
            raise ValueError(f"the answer has more than {_ANSWER_LIMIT} bytes")
    return bytes(body)


def refuse(doing: str, status: int, content: bytes) -> NoReturn:
    """Raise what an answer that is none means."""
    document = object_of(content)
    if document is None or "error" not in document:
        raise PublisherUnreachableError(
            f"{doing}: it answers with HTTP {status}: is --publisher the URL of a publisher?"
        )
    text = str(document["error"])
    if status == _UNAUTHORIZED:
        raise PublisherTokenError(f"{text}: name the file that holds the publisher's token, see --token-file")
    if status == _MISSING:
        raise NotKnownError(text)
    raise PublisherRefusedError(f"{doing}: {text}")


def object_of(content: bytes) -> dict[str, object] | None:
    """Return the object that is a document; None if it is anything else."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def parse(model: type[_Model], content: str | bytes, doing: str) -> _Model:
    """Read an answer to a request.

    Raises
    ------
    PublisherUnreachableError
        It is of another form.
    """
    try:
        return model.model_validate_json(content)
    except ValidationError:
        raise not_a_publisher(doing) from None


def not_a_publisher(doing: str) -> PublisherUnreachableError:
    """Say that whatever answered a request is no publisher."""
    return PublisherUnreachableError(f"{doing}: the answer is not a publisher's: is --publisher right?")
