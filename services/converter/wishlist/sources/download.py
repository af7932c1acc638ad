"""Wish lists from web servers: by https, only where they have changed, within limits of size and time."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import aiohttp
from yarl import URL

from services.common.proxies import proxy_for
from services.common.settings import SettingsError
from services.converter.errors import SourceUnreachableError
from services.converter.wishlist.sources.credentials import ListCredentials
from services.converter.wishlist.tree import SIZE_LIMIT

__all__ = ["Download", "Downloader", "Validators"]

_REDIRECTS: Final = 5
_PIECE: Final = 64 << 10
_LINE_LIMIT: Final = 8 << 10
"""Longest header, in bytes."""
_OK: Final = 200
_NOT_MODIFIED: Final = 304
_MOVED: Final = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Validators:
    """What a server knows a version by."""

    etag: str | None = None
    last_modified: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a request for a newer version."""
        named = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Download:
    """A version."""

    content: bytes
    """Maybe one byte more than the limit of wish lists."""
    validators: Validators


class Downloader:
    """Fetches wish lists.

    Parameters
    ----------
    session
        aiohttp's.
    tls
        What servers are trusted by.
    credentials
        Who the user is to them.
    patience
        Longest time for one list, in seconds.
    """

    def __init__(
        self, *, session: aiohttp.ClientSession, tls: ssl.SSLContext, credentials: ListCredentials, patience: float
    ) -> None:
        self._session = session
        self._tls = tls
        self._credentials = credentials
        self._patience = patience

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, *, patience: float, ca_file: Path | None = None, credentials: Path | None = None
    ) -> AsyncIterator[Self]:
        """Connect on demand, and close what is open in the end.

        Parameters
        ----------
        patience
            Longest time for one list, in seconds.
        ca_file
            Certificates to trust besides the system's.
        credentials
            Directory of credentials; None where lists are open to anybody.

        Raises
        ------
        SettingsError
            The file holds no certificates.
        """
        tls = ssl.create_default_context()
        if ca_file is not None:
            try:
                tls.load_verify_locations(ca_file)
            except (OSError, ssl.SSLError) as error:
                raise SettingsError(f"no certificates in {ca_file}: {error.strerror or error}") from None
        jar = aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(
            cookie_jar=jar, max_line_size=_LINE_LIMIT, max_field_size=_LINE_LIMIT
        ) as session:
            yield cls(session=session, tls=tls, credentials=ListCredentials(credentials), patience=patience)

    async def fetch(self, url: URL, known: Validators) -> Download | None:
        """Return the present version; None where it is the known one still.

        Raises
        ------
        SourceUnreachableError
            There is none to be had now.
        """
        try:
            async with asyncio.timeout(self._patience):
                return await self._follow(url, known)
        except TimeoutError:
            raise SourceUnreachableError(f"no answer from {url} within {self._patience:g} seconds") from None
        except aiohttp.ClientError as error:
            raise SourceUnreachableError(f"cannot read {url}: {error or type(error).__name__}") from None

    async def _follow(self, url: URL, known: Validators) -> Download | None:
        target = url
        for _ in range(_REDIRECTS + 1):
            # Each server is shown what is for it, and nothing that is for the one that has led to it.
            headers = {**known.headers, **await self._credentials.headers(target)}
            async with self._session.get(
                target, headers=headers, ssl=self._tls, proxy=proxy_for(target), allow_redirects=False
            ) as answer:
                if answer.status == _NOT_MODIFIED and known.headers:
                    return None
                if answer.status == _OK:
                    content = await _body(answer)
                    validators = Validators(answer.headers.get("ETag"), answer.headers.get("Last-Modified"))
                    return Download(content, validators)
                if answer.status not in _MOVED:
                    raise SourceUnreachableError(f"{url} answers {answer.status} {answer.reason}")
                target = _moved(url, target, answer.headers.get("Location", ""))
        raise SourceUnreachableError(f"{url} redirects more than {_REDIRECTS} times")


def _moved(url: URL, target: URL, location: str) -> URL:
    try:
        moved = target.join(URL(location))
    except ValueError:
        raise SourceUnreachableError(f"{url} redirects to what is no URL") from None
    if not location or moved.scheme != "https" or moved.user is not None:
        raise SourceUnreachableError(f"{url} redirects to nowhere, or away from https: this is not followed")
    return moved


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for piece in answer.content.iter_chunked(_PIECE):
        content += piece
        if len(content) > SIZE_LIMIT:
            break
    return bytes(content[: SIZE_LIMIT + 1])
