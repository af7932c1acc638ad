"""Putting many small objects: a client that does everything works on a request many times as long as sending it takes.

So a request is signed here, as AWS describes it (Signature Version 4, header `Authorization`), and sent once, by a
connection that knows nothing but such requests. Whatever is answered but that the object is there, the object is then
put as any other: that is repeated where it may help, and says what is wrong. So it is through a proxy.
"""

import asyncio
import hashlib
import hmac
import os
import re
import ssl
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final, Self, cast
from urllib.parse import quote

from botocore.httpsession import get_cert_path
from yarl import URL

from services.common.object_store.body import MemoryPart
from services.common.object_store.bucket import Bucket
from services.common.proxies import proxy_for

__all__ = ["SmallPuts"]

_SIGNED: Final = "cache-control;content-type;host;x-amz-checksum-sha256;x-amz-content-sha256;x-amz-date"
_SCHEME: Final = "AWS4-HMAC-SHA256"

_END_OF_HEAD: Final = b"\r\n\r\n"
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([0-9]{3})[ \r]")
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)
_CLOSES: Final = re.compile(rb"\r\nconnection:[^\r]*\bclose\b", re.IGNORECASE)
_LONGEST_ANSWER: Final = 64 << 10
"""Most bytes of an answer that a connection is kept for."""


class SmallPuts:
    """Puts objects into one bucket. Made by `open`.

    Parameters
    ----------
    bucket
        The bucket.
    trust
        How the server proves who it is; None where the connection is not encrypted.
    """

    def __init__(self, *, bucket: Bucket, trust: ssl.SSLContext | None) -> None:
        settings = bucket.settings
        self._bucket = bucket
        self._trust = trust
        endpoint = URL(str(settings.endpoint).rstrip("/"))
        self._address = endpoint.host or "", endpoint.port or 0
        self._host = endpoint.host_port_subcomponent or ""
        self._path = f"{endpoint.raw_path.rstrip('/')}/{settings.bucket}/"
        self._proxy = proxy_for(endpoint)
        self._signature = _Signature(
            settings.access_key.get_secret_value(), settings.secret_key.get_secret_value(), settings.region
        )
        self._idle: list[_Connection] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, bucket: Bucket) -> AsyncIterator[Self]:
        """Get ready; nothing is sent yet."""
        trust = None
        if bucket.settings.endpoint.scheme == "https":
            # Authorities are those that botocore believes.
            trust = ssl.create_default_context(cafile=get_cert_path(os.environ.get("AWS_CA_BUNDLE") or True))
        small = cls(bucket=bucket, trust=trust)
        try:
            yield small
        finally:
            for connection in small._idle:
                await connection.end()

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
        if self._proxy is None:
            head = self._signature.head(
                self._path + quote(key, safe="/-_.~"),
                self._host,
                sha256=sha256,
                size=len(content),
                cache_control=cache_control,
                content_type=content_type,
            )
            if await self._is_taken(head, content):
                return
        await self._bucket.request(
            "put_object",
            doing="uploading",
            key=key,
            body=MemoryPart(memoryview(content), sha256.hex()),
            CacheControl=cache_control,
            ContentType=content_type,
        )

    async def _is_taken(self, head: bytes, content: bytes) -> bool:
        """Send a request once, and tell whether it has been met; if not, it does not matter here why."""
        settings = self._bucket.settings
        try:
            connection = await self._connected(settings.connect_timeout)
            try:
                async with asyncio.timeout(settings.allowance(len(content))):
                    status = await connection.send(head, content)
            finally:
                if connection.is_open:
                    self._idle.append(connection)
        except (OSError, TimeoutError):
            return False
        return status == HTTPStatus.OK

    async def _connected(self, seconds: float) -> "_Connection":
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        host, port = self._address
        async with asyncio.timeout(seconds):
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(_Connection, host, port, ssl=self._trust)
        return connection


class _Signature:
    """Makes the heads of requests that prove who puts what where, and when.

    The digest of what is sent is signed, too: so a server finds damage before it.
    """

    def __init__(self, access_key: str, secret_key: str, region: str) -> None:
        self._access_key = access_key
        self._secret_key = secret_key
        self._region = region
        self._day = ""
        self._key = b""

    def head(self, path: str, host: str, *, sha256: bytes, size: int, cache_control: str, content_type: str) -> bytes:
        """Return everything of a PUT before its body; the path is quoted as URLs want it."""
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        day = now[:8]
        digest = sha256.hex()
        headers = (
            f"cache-control:{cache_control}\n"
            f"content-type:{content_type}\n"
            f"host:{host}\n"
            f"x-amz-checksum-sha256:{b64encode(sha256).decode()}\n"
            f"x-amz-content-sha256:{digest}\n"
            f"x-amz-date:{now}\n"
        )
        request = f"PUT\n{path}\n\n{headers}\n{_SIGNED}\n{digest}"
        scope = f"{day}/{self._region}/s3/aws4_request"
        text = f"{_SCHEME}\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = _keyed(self._key_of(day), text).hex()
        authorization = (
            f"{_SCHEME} Credential={self._access_key}/{scope}, SignedHeaders={_SIGNED}, Signature={signature}"
        )
        lines = headers.replace("\n", "\r\n")
        return (
            f"PUT {path} HTTP/1.1\r\n{lines}content-length:{size}\r\nauthorization:{authorization}\r\n\r\n"
        ).encode()

    def _key_of(self, day: str) -> bytes:
        if day != self._day:
            key = f"AWS4{self._secret_key}".encode()
            for part in (day, self._region, "s3", "aws4_request"):
                key = _keyed(key, part)
            self._day, self._key = day, key
        return self._key


def _keyed(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


class _Connection(asyncio.Protocol):
    """A connection to a server that takes one request after the other."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._answer: asyncio.Future[int] | None = None
        self._ended = asyncio.get_running_loop().create_future()

    @property
    def is_open(self) -> bool:
        """Whether it can take a request."""
        return self._answer is None and not self._transport.is_closing()

    async def send(self, head: bytes, content: bytes) -> int:
        """Send a request, and return the status of its answer.

        Raises
        ------
        OSError
            The connection broke, or the answer is none.
        """
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.writelines((head, content))
        try:
            return await self._answer
        except BaseException:
            self._transport.abort()
            raise
        finally:
            self._answer = None

    async def end(self) -> None:
        """Close it."""
        self._transport.abort()
        await self._ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits for an answer."""
        self._ended.set_result(None)
        self._fail(f"the server has closed the connection: {exc}")

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer."""
        self._received += data
        end = self._received.find(_END_OF_HEAD)
        if end < 0 and len(self._received) <= _LONGEST_ANSWER:
            return
        head = bytes(self._received[: end + len(_END_OF_HEAD)])
        status, length = _STATUS.match(head), _LENGTH.search(head)
        if status is None or self._answer is None:
            self._fail("the server has sent something that is no answer")
            self._transport.abort()
            return
        # Only an answer whose end is known leaves a connection that another request can go by.
        if length is None or int(length[1]) > _LONGEST_ANSWER or _CLOSES.search(head):
            self._transport.abort()
        elif len(self._received) < len(head) + int(length[1]):
            return
        self._received.clear()
        if not self._answer.done():
            self._answer.set_result(int(status[1]))

    def _fail(self, reason: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(reason))
