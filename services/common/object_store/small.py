"""Putting many small objects: botocore works on a request several times as long as sending it takes.

So only its signature is taken from there, and the request is sent once. Whatever is answered but that the object is
there, the object is then put as any other: that is repeated where it may help, and says what is wrong.
"""

import asyncio
import os
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final, Self
from urllib.parse import quote

import aiohttp
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.httpsession import get_cert_path
from yarl import URL

from services.common.object_store.body import MemoryPart
from services.common.object_store.bucket import Bucket
from services.common.proxies import proxy_for

__all__ = ["SmallPuts"]

_CONNECTIONS: Final = 64
"""Most connections to the server at a time."""


class _Signature(S3SigV4Auth):  # type: ignore[misc] # botocore has no types
    """As botocore's, but with the digest that what is sent must have: so a server finds damage before it, too."""

    def payload(self, request: AWSRequest) -> str:
        """Return the digest."""
        return str(request.context["sha256"])


class SmallPuts:
    """Puts objects into one bucket. Made by `open`.

    Parameters
    ----------
    bucket
        The bucket.
    session
        Sends requests.
    """

    def __init__(self, *, bucket: Bucket, session: aiohttp.ClientSession) -> None:
        self._bucket = bucket
        self._settings = bucket.settings
        self._session = session
        endpoint = URL(str(self._settings.endpoint).rstrip("/"))
        self._origin = str(endpoint.origin())
        self._path = f"{endpoint.raw_path.rstrip('/')}/{self._settings.bucket}/"
        self._proxy = proxy_for(endpoint)
        credentials = Credentials(
            self._settings.access_key.get_secret_value(), self._settings.secret_key.get_secret_value()
        )
        self._auth = _Signature(credentials, "s3", self._settings.region)

    @classmethod
    @asynccontextmanager
    async def open(cls, bucket: Bucket) -> AsyncIterator[Self]:
        """Make the connections; nothing is sent yet."""
        # Authorities are those that botocore believes.
        trust: ssl.SSLContext | bool = True
        if bucket.settings.endpoint.scheme == "https":
            trust = ssl.create_default_context(cafile=get_cert_path(os.environ.get("AWS_CA_BUNDLE") or True))
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=trust)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=bucket.settings.connect_timeout)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            yield cls(bucket=bucket, session=session)

    async def put(self, key: str, content: bytes, sha256: bytes, *, cache_control: str, content_type: str) -> None:
        """Put an object, over whatever is there.

        Parameters
        ----------
        key, content
            Its key, and all of it.
        sha256
            The digest of the content.
        cache_control, content_type
            What servers say of it.

        Raises
        ------
        ObjectStoreError
            The server could not be reached for `retry_seconds`, or refused.
        """
        headers = {"Cache-Control": cache_control, "Content-Type": content_type}
        url = URL(self._origin + self._path + _quoted(key), encoded=True)
        signed = self._signed(url, sha256, headers | {"x-amz-checksum-sha256": b64encode(sha256).decode()})
        if not await self._is_taken(url, content, signed):
            await self._bucket.request(
                "put_object",
                doing="uploading",
                key=key,
                body=MemoryPart(memoryview(content), sha256.hex()),
                CacheControl=cache_control,
                ContentType=content_type,
            )

    async def _is_taken(self, url: URL, content: bytes, headers: dict[str, str]) -> bool:
        """Send a request once, and tell whether it has been met; if not, it does not matter here why."""
        try:
            async with (
                asyncio.timeout(self._settings.allowance(len(content))),
                self._session.put(
                    url, data=content, headers=headers, proxy=self._proxy, allow_redirects=False
                ) as answer,
            ):
                await answer.read()
                return answer.status == HTTPStatus.OK
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _signed(self, url: URL, sha256: bytes, headers: dict[str, str]) -> dict[str, str]:
        """Return the headers of a request, with those that prove who puts what where, and when."""
        request = AWSRequest(method="PUT", url=str(url), headers=headers)
        request.context["sha256"] = sha256.hex()
        self._auth.add_auth(request)
        return dict(request.headers.items())


def _quoted(key: str) -> str:
    return quote(key, safe="/-_.~")
