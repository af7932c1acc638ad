"""Putting many small objects: botocore works on a request several times as long as sending it takes.

A request is signed here (AWS Signature Version 4) and sent once. Whatever is answered but that the object is there, the
object is then put as any other: that is repeated where it may help, and says what is wrong.
"""

import asyncio
import hashlib
import hmac
import os
import ssl
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final, Self
from urllib.parse import quote

import aiohttp
from botocore.httpsession import get_cert_path
from yarl import URL

from services.common.object_store.body import MemoryPart
from services.common.object_store.bucket import Bucket
from services.common.proxies import proxy_for

__all__ = ["SmallObjects"]

_CONNECTIONS: Final = 64
"""Most connections to the server at a time."""
_SIGNED: Final = "host;x-amz-checksum-sha256;x-amz-content-sha256;x-amz-date"


class SmallObjects:
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
        self._host = endpoint.raw_authority if not endpoint.is_default_port() else endpoint.raw_host or ""
        self._proxy = proxy_for(endpoint)
        self._day = ""
        self._key = b""

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
        if not await self._is_taken(key, content, headers | self._signature(key, sha256)):
            await self._bucket.request(
                "put_object",
                doing="uploading",
                key=key,
                body=MemoryPart(memoryview(content), sha256.hex()),
                CacheControl=cache_control,
                ContentType=content_type,
            )

    async def _is_taken(self, key: str, content: bytes, headers: dict[str, str]) -> bool:
        """Send a request once, and tell whether it has been met; if not, it does not matter here why."""
        url = URL(self._origin + self._path + _quoted(key), encoded=True)
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

    def _signature(self, key: str, sha256: bytes) -> dict[str, str]:
        """Return the headers that prove who puts what where, and when."""
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        scope = f"{now[:8]}/{self._settings.region}/s3/aws4_request"
        digest, checksum = sha256.hex(), b64encode(sha256).decode()
        request = (
            f"PUT\n{self._path}{_quoted(key)}\n\nhost:{self._host}\nx-amz-checksum-sha256:{checksum}\n"
            f"x-amz-content-sha256:{digest}\nx-amz-date:{now}\n\n{_SIGNED}\n{digest}"
        )
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(self._signing_key(now[:8]), text.encode(), "sha256").hex()
        who = f"Credential={self._settings.access_key.get_secret_value()}/{scope}"
        return {
            "Host": self._host,
            "x-amz-checksum-sha256": checksum,
            "x-amz-content-sha256": digest,
            "x-amz-date": now,
            "Authorization": f"AWS4-HMAC-SHA256 {who}, SignedHeaders={_SIGNED}, Signature={signature}",
        }

    def _signing_key(self, day: str) -> bytes:
        if day != self._day:
            key = b"AWS4" + self._settings.secret_key.get_secret_value().encode()
            for part in (day, self._settings.region, "s3", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._day, self._key = day, key
        return self._key


def _quoted(key: str) -> str:
    return quote(key, safe="/-_.~")
