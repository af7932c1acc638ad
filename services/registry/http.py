"""One HTTP request: connections, TLS, proxies, time-outs, and what their failures mean.

Redirects are not followed and credentials not known here; `transport` decides about both.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from services.common.proxies import proxy_for
from services.registry.errors import (
    InsecureConnectionError,
    InvalidAnswerError,
    RegistryError,
    RegistryRefusedError,
    RegistryUnavailableError,
)
from services.registry.options import RegistryOptions
from services.registry.quick_heads import QuickHeads

__all__ = ["Answer", "Http", "place_of"]

_BUFFER: Final = 1 << 20
"""Bytes of a body at which the connection waits for its reader."""

_LINE_LIMIT: Final = 32 << 10
"""Longest header, in bytes: the Location of signed URLs is long."""

_USER_AGENT: Final = "docker2cvmfs"

_CONNECTIONS: Final = 1024
"""Most connections to all places together; how many requests one registry gets is limited elsewhere."""


def place_of(url: URL) -> str:
    """Return the part of a URL that may be shown: no query, which may hold a signature, and no user."""
    return f"{url.scheme}://{url.host_port_subcomponent}"


class Answer:
    """An answer whose body has not been read.

    Parameters
    ----------
    response
        aiohttp's.
    what
        What the request was for, for errors.
    """

    def __init__(self, response: aiohttp.ClientResponse, *, what: str) -> None:
        self._response = response
        self.what = what

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The headers."""
        return self._response.headers

    @property
    def url(self) -> URL:
        """What was asked for."""
        return self._response.url

    @property
    def length(self) -> int | None:
        """Size of the body, in bytes; None where it is not said."""
        return self._response.content_length

    async def next_piece(self) -> bytes:
        """Return what has arrived of the body, or wait for more; nothing is its end.

        Raises
        ------
        RegistryUnavailableError
            The connection broke, or nothing arrived for too long.
        """
        try:
            # Not readany(), which copies what arrived in several reads into one.
            content = self._response.content
            piece, at_boundary = await content.readchunk()
            # The body of an answer that has none, such as to HEAD, says for ever that a chunk has ended.
            while at_boundary and not piece and not content.at_eof():
                piece, at_boundary = await content.readchunk()
        except (aiohttp.ClientError, OSError) as error:
            raise _translate(error, what=self.what, url=self.url) from None
        return piece

    async def body(self, limit: int) -> bytes:
        """Return the whole body.

        Raises
        ------
        InvalidAnswerError
            It has more than `limit` bytes.
        """
        pieces, size = [], self.length or 0
        if size <= limit:
            size = 0
            while size <= limit and (piece := await self.next_piece()):
                pieces.append(piece)
                size += len(piece)
        if size > limit:
            raise InvalidAnswerError(
                f"{self.what}: the answer has more than {limit} bytes, which is no honest one: "
                f"ask those who run {place_of(self.url)}"
            )
        return b"".join(pieces)


class Http:
    """Sends requests.

    Parameters
    ----------
    options
        Time-outs and certificates.
    """

    def __init__(self, *, options: RegistryOptions) -> None:
        self._options = options
        self._session: aiohttp.ClientSession | None = None
        self.heads: QuickHeads
        """The shortest way for one kind of request; it goes through no proxy."""
        self._proxies: dict[tuple[str, str | None, int | None], str | None] = {}

    async def __aenter__(self) -> Self:
        context = await asyncio.to_thread(_context, self._options.ca_file)
        self.heads = QuickHeads(tls=context, patience=self._options.read_timeout, user_agent=_USER_AGENT)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=context),
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=None,
                sock_connect=self._options.connect_timeout,
                sock_read=self._options.read_timeout,
            ),
            # Digests are of what is sent, so nothing may be decoded on the way; and a registry sets no cookies.
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"},
            read_bufsize=_BUFFER,
            max_line_size=_LINE_LIMIT,
            max_field_size=_LINE_LIMIT,
        )
        return self

    async def __aexit__(self, *_failure: object) -> None:
        if self._session is not None:
            self.heads.close()
            await self._session.close()

    def proxy(self, url: URL) -> str | None:
        """Return the proxy for a URL; the environment is looked through once for each server."""
        server = (url.scheme, url.host, url.port)
        if server not in self._proxies:
            self._proxies[server] = proxy_for(url)
        return self._proxies[server]

    @asynccontextmanager
    async def send(
        self, method: str, url: URL, *, what: str, headers: Mapping[str, str], data: bytes | None = None
    ) -> AsyncIterator[Answer]:
        """Send a request once and wait for the head of its answer, whatever its status is.

        Raises
        ------
        RegistryUnavailableError
            There is no answer; the same request may succeed later.
        InsecureConnectionError
            There is no TLS connection that can be trusted.
        """
        if self._session is None:
            raise RuntimeError("a client is used as `async with`")
        try:
            response = await self._session.request(
                method, url, headers=headers, data=data, allow_redirects=False, proxy=self.proxy(url)
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _translate(error, what=what, url=url) from None
        async with response:
            yield Answer(response, what=what)


def _context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise InsecureConnectionError(
                f"the certificates in {ca_file} cannot be read ({error.strerror or error}): give PEM"
            ) from None
    return context


def _translate(error: Exception, *, what: str, url: URL) -> RegistryError:
    where = place_of(url)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return InsecureConnectionError(
            f"{what}: the certificate of {where} cannot be trusted: {_cause(error)}: {_remedy(error.certificate_error)}"
        )
    for kinds, kind, text in _MEANINGS:
        if isinstance(error, kinds):
            return kind(f"{what}: {text.format(where=where, cause=_cause(error))}")
    return RegistryUnavailableError(f"{what}: the connection to {where} broke: {_cause(error)}: try again later")


_MEANINGS: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], type[RegistryError], str], ...]] = (
    (
        aiohttp.ClientSSLError,
        InsecureConnectionError,
        "no TLS connection to {where}: {cause}: check the port; a registry of plain HTTP needs --insecure-registry",
    ),
    (
        (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError),
        RegistryUnavailableError,
        "the proxy for {where} failed: {cause}: check https_proxy, http_proxy and no_proxy",
    ),
    (TimeoutError, RegistryUnavailableError, "{where} sent nothing for too long: try again later"),
    (
        aiohttp.ClientConnectorError,
        RegistryUnavailableError,
        "{where} cannot be reached: {cause}: check its name and that it runs",
    ),
    ((aiohttp.InvalidURL, ValueError), RegistryRefusedError, "{where} is no address that can be asked"),
    (
        aiohttp.ClientResponseError,
        InvalidAnswerError,
        "{where} gave an answer that is no HTTP: check host and port",
    ),
)
"""What the failures of a request mean; the first that fits counts."""


_REMEDIES: Final[Mapping[int, str]] = {
    **dict.fromkeys((2, 18, 19, 20, 21), "name the authority that signed it with --ca-file or REGISTRY_CA_FILE"),
    **dict.fromkeys((9, 10), "check the clock here, and have the certificate renewed"),
    **dict.fromkeys((62, 64), "name the registry as its certificate does"),
}
"""What to do, by the number that OpenSSL's x509_vfy.h gives the reason: no issuer is known, the time, the name."""

_BROKEN: Final = (
    "--ca-file does not help here: have the certificate, or the one of the authority that signed it, made anew as "
    "RFC 5280 wants it; an authority's needs basicConstraints (critical, CA:TRUE) and keyUsage (keyCertSign)"
)


def _remedy(failure: Exception) -> str:
    """Return what to do about a certificate, by why it was refused."""
    return _REMEDIES.get(getattr(failure, "verify_code", 0), _BROKEN)


def _cause(error: Exception) -> str:
    """Return what happened, without the URL that aiohttp's own texts name."""
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    told = getattr(cause, "verify_message", "") or getattr(cause, "strerror", "") or type(cause).__name__
    return str(told)[:200]
