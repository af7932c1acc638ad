"""The publisher's HTTP interface, as far as a converter needs it."""

import asyncio
import json
from collections.abc import Callable
from typing import Annotated, Final, Self

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.common.digest import Digest
from services.docker2cvmfs.errors import PublisherError

__all__ = ["LayerStatus", "PublisherApi"]

_ANSWER_LIMIT: Final = 1 << 20
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, connect=10)
_POLL_FIRST: Final = 0.1
_POLL_LAST: Final = 2.0
"""Seconds between two questions about a layer, at first and in the end: the interface has no events."""
_PATIENCE: Final = 60.0
"""How long a publisher may be unreachable while it is waited for, in seconds: it may be restarted."""
_OK: Final = 200
_MISSING: Final = 404


class LayerStatus(BaseModel):
    """What the publisher says of a layer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: Annotated[str, Field(max_length=40)]
    """`announced`, `fetching`, `verified`, `publishing`, `published` or `failed`."""
    reason: str | None = None
    """Why it failed."""
    retryable: bool | None = None
    """Whether it is tried again by itself."""

    @property
    def is_published(self) -> bool:
        """Whether readers of the repository see the layer."""
        return self.state == "published"

    @property
    def is_refused(self) -> bool:
        """Whether it failed for good."""
        return self.state == "failed" and not self.retryable


class PublisherApi:
    """Asks a publisher; a context manager that holds the connections.

    Parameters
    ----------
    url
        Where the publisher is, `http(s)://HOST[:PORT]`.
    """

    def __init__(self, *, url: str) -> None:
        self._url = url.rstrip("/")

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True)
        return self

    async def __aexit__(self, *_failure: object) -> None:
        await self._session.close()

    async def status(self, digest: Digest) -> LayerStatus | None:
        """Ask for a layer; None if the publisher has not heard of it.

        Raises
        ------
        PublisherError
            There is no answer, or none that a publisher gives.
        """
        where = f"asking the publisher at {self._url} for layer {digest}"
        try:
            async with self._session.get(f"{self._url}/v1/layers/{digest}", allow_redirects=False) as response:
                content = await response.content.read(_ANSWER_LIMIT)
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            text = str(error) or type(error).__name__
            raise PublisherError(f"{where}: {text}: is it up, and is --publisher right?") from None
        if status == _MISSING and _is_object(content):
            return None
        if status != _OK:
            raise PublisherError(f"{where}: it answers with HTTP {status}: is --publisher the URL of a publisher?")
        try:
            return LayerStatus.model_validate_json(content)
        except ValidationError:
            raise PublisherError(f"{where}: the answer is not a publisher's: is --publisher right?") from None

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
        PublisherError
            The layer is refused, or the publisher does not answer.
        """
        pause, known = _POLL_FIRST, ""
        loop = asyncio.get_running_loop()
        answered = loop.time()
        while True:
            try:
                status = await self.status(digest)
            except PublisherError:
                if loop.time() - answered > _PATIENCE:
                    raise
            else:
                answered = loop.time()
                if status is not None and status.state != known:
                    known, pause = status.state, _POLL_FIRST
                    report(known)
                if status is not None and status.is_published:
                    return
                if status is not None and status.is_refused:
                    raise PublisherError(
                        f"layer {digest} is not published: {status.reason}: mend it, then "
                        f"POST {self._url}/v1/layers/{digest}/retry with the publisher's token"
                    )
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _POLL_LAST)


def _is_object(content: bytes) -> bool:
    """Whether this is a publisher's own refusal and not that of some other server."""
    try:
        return "error" in json.loads(content)
    except (ValueError, TypeError):
        return False
