"""Requests to the bucket: signing, time-outs, repetitions, and errors in the suite's own terms."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Self

import botocore.auth
import stamina
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from services.common.object_store.body import Body, BodyPayload, checksum
from services.common.object_store.client_data import client_data
from services.common.object_store.errors import CLIENT_FAILURES, Place, StoreUnavailableError, translate
from services.common.object_store.settings import StoreSettings
from services.common.object_store.term import TERM_SIGNER, Term, has_term, within

__all__ = ["Bucket"]

_CONNECTIONS: Final = 64
"""Most connections to the server at a time."""

_SESSION_VARIABLES: Final = {
    # The settings decide; the profiles of whoever started the program have no say.
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
"""Name in configuration files, environment variable, default and conversion of some of botocore's own settings."""

_SIGNER: Final = "s3v4-known-payload"


class _KnownPayloadAuth(botocore.auth.S3SigV4Auth):  # type: ignore[misc] # botocore has no types
    """Signs a body with the SHA-256 that is known of it; botocore would read it all, on the event loop."""

    def payload(self, request: Any) -> str:  # noqa: ANN401 - botocore has no types
        """Return the digest that the server compares the body with."""
        known = getattr(request.body, "sha256", None)
        return str(super().payload(request) if known is None else known)


botocore.auth.AUTH_TYPE_MAPS[_SIGNER] = _KnownPayloadAuth


def _choose_signer(**_context: object) -> str:
    return TERM_SIGNER if has_term() else _SIGNER


def _choose_term(**_context: object) -> str | None:
    return TERM_SIGNER if has_term() else None


class Bucket:
    """One bucket at one server.

    Parameters
    ----------
    client
        A botocore client of the service `s3`.
    settings
        Where it is and how long to wait for it.
    """

    def __init__(self, *, client: Any, settings: StoreSettings) -> None:  # noqa: ANN401 - botocore has no types
        self.settings = settings
        self._client = client

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: StoreSettings) -> AsyncIterator[Self]:
        """Connect to the bucket; nothing is sent yet."""
        config = AioConfig(
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
            max_pool_connections=_CONNECTIONS,
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            # The default is a CRC in a trailer, which some servers refuse; SHA-256 is sent instead.
            request_checksum_calculation="when_required",
            # The whole object is checked against its digest.
            response_checksum_validation="when_required",
            # Repetitions are decided here, not in two places.
            retries={"total_max_attempts": 1},
        )
        session = AioSession(session_vars=_SESSION_VARIABLES)
        session.register_component("data_loader", client_data())
        async with session.create_client(
            "s3",
            endpoint_url=str(settings.endpoint).rstrip("/"),
            region_name=settings.region,
            aws_access_key_id=settings.access_key.get_secret_value(),
            aws_secret_access_key=settings.secret_key.get_secret_value(),
            config=config,
        ) as client:
            for operation in ("PutObject", "UploadPart"):
                client.meta.events.register_first(f"choose-signer.s3.{operation}", _choose_signer)
            for operation in ("CopyObject", "DeleteObjects"):
                client.meta.events.register_first(f"choose-signer.s3.{operation}", _choose_term)
            yield cls(client=client, settings=settings)

    def place(self, key: str | None = None) -> Place:
        """Name an object, or the bucket itself, for errors."""
        return Place(str(self.settings.endpoint).rstrip("/"), self.settings.bucket, key)

    def attempts(self) -> AsyncIterator[stamina.Attempt]:
        """Iterate over attempts at something, with growing random pauses, while only transient failures meet it."""
        return stamina.retry_context(
            on=StoreUnavailableError, attempts=None, timeout=self.settings.retry_seconds, wait_jitter=0.2
        ).__aiter__()

    async def request(
        self,
        operation: str,
        *,
        doing: str,
        key: str | None = None,
        body: Body | None = None,
        transferring: int | None = None,
        term: Term | None = None,
        **parameters: object,
    ) -> Mapping[str, Any]:
        """Send a request, again if need be, and return the answer.

        Parameters
        ----------
        operation
            Name of the client's method.
        doing
            What it is for, for errors.
        key
            Key of the object; None if it is about the bucket.
        body
            What to send.
        transferring
            Bytes that are on their way to the server at the same time, this body's included; its own if not given.
        term
            After which the server refuses it; for `put_object`, `copy_object` and `delete_objects`.
        parameters
            Further parameters of the method.

        Raises
        ------
        ObjectStoreError
            The server could not be reached for `retry_seconds`, or refused.
        OSError
            The body's file cannot be read.
        """
        async for attempt in self.attempts():
            with attempt:
                return await self.request_once(
                    operation, doing=doing, key=key, body=body, transferring=transferring, term=term, **parameters
                )
        raise AssertionError("the last attempt returns or raises")

    async def request_once(
        self,
        operation: str,
        *,
        doing: str,
        key: str | None = None,
        body: Body | None = None,
        transferring: int | None = None,
        term: Term | None = None,
        **parameters: object,
    ) -> Mapping[str, Any]:
        """Send a request once; otherwise as `request`."""
        if key is not None:
            parameters["Key"] = key
        payload = None
        if body is not None:
            transferring = body.size if transferring is None else transferring
            payload = BodyPayload(body)
            parameters |= {"Body": payload, "ContentLength": body.size, "ChecksumSHA256": checksum(body)}
        with within(term), self.failures(doing=doing, key=key, payload=payload):
            # The read time-out of the client does not cover a server that stops reading.
            async with asyncio.timeout(self.settings.allowance(transferring or 0)):
                answer: Mapping[str, Any] = await getattr(self._client, operation)(
                    Bucket=self.settings.bucket, **parameters
                )
                return answer

    @contextmanager
    def failures(self, *, doing: str, key: str | None, payload: BodyPayload | None = None) -> Iterator[None]:
        """Turn what clients raise into the suite's errors.

        Parameters
        ----------
        doing, key
            What is done to which object, for errors.
        payload
            The body that is sent meanwhile; its own failures are not the server's.
        """
        try:
            yield
        except CLIENT_FAILURES as error:
            if payload is not None and payload.failure is not None:
                raise payload.failure from None
            raise translate(error, doing=doing, place=self.place(key)) from error
        except TimeoutError:
            raise StoreUnavailableError(f"{doing} {self.place(key)}: the server does not go on") from None

    @asynccontextmanager
    async def deadline(self, size: int, *, doing: str, key: str) -> AsyncIterator[asyncio.Timeout]:
        """Bound the time of a whole transfer.

        Parameters
        ----------
        size
            Bytes to transfer.
        doing, key
            What is done to which object, for errors.

        Raises
        ------
        StoreUnavailableError
            The time is over.
        """
        seconds = self.settings.deadline(size)
        try:
            async with asyncio.timeout(seconds) as timeout:
                yield timeout
        except TimeoutError:
            raise StoreUnavailableError(
                f"{doing} {self.place(key)}: not done in time, slower than LAYER_STORE_MINIMUM_RATE of "
                f"{self.settings.minimum_rate.human_readable()}/s"
            ) from None
