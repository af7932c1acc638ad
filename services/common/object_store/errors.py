"""What can go wrong with the object store.

Tree::

    ObjectStoreError
    ├── StoreUnavailableError         unreachable, too slow or overloaded, for as long as it was tried
    ├── StoreRefusedError             the store refused a request
    │   ├── AccessDeniedError         the user may not do this, or the keys are wrong
    │   ├── BucketMissingError        there is no such bucket
    │   └── PreconditionFailedError   the object is there already, or is no longer the same
    ├── ObjectMissingError            there is no such object
    ├── ObjectConflictError           an object of that name is there and is not what it should be
    ├── ChecksumMismatchError         content does not have the digest that it is known by
    │   └── StreamMismatchError       so it had arrived from where the stream came from
    └── ObjectTooLargeError           an object is larger than the limit

The texts name the object, the bucket and the endpoint; none holds a key or a signature.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError, SSLError
from botocore.exceptions import ConnectionError as EndpointError
from botocore.parsers import ResponseParserError

from services.common.errors import SuiteError

__all__ = [
    "CLIENT_FAILURES",
    "AccessDeniedError",
    "BucketMissingError",
    "ChecksumMismatchError",
    "ObjectConflictError",
    "ObjectMissingError",
    "ObjectStoreError",
    "ObjectTooLargeError",
    "Place",
    "PreconditionFailedError",
    "StoreRefusedError",
    "StoreUnavailableError",
    "StreamMismatchError",
    "translate",
]


class ObjectStoreError(SuiteError):
    """The object store failed or refused."""


class StoreUnavailableError(ObjectStoreError):
    """The store was unreachable, too slow or overloaded; the same request may succeed later."""


class StoreRefusedError(ObjectStoreError):
    """The store refused a request."""


class AccessDeniedError(StoreRefusedError):
    """The store does not let this user do this."""


class BucketMissingError(StoreRefusedError):
    """There is no such bucket."""


class PreconditionFailedError(StoreRefusedError):
    """The object is not in the state that the request makes a condition; its caller knows what that means."""


class ObjectMissingError(ObjectStoreError):
    """There is no such object."""


class ObjectConflictError(ObjectStoreError):
    """An object of that name is there and is not what it should be."""


class ChecksumMismatchError(ObjectStoreError):
    """Content does not have the digest that it is known by."""


class StreamMismatchError(ChecksumMismatchError):
    """What arrived to be stored is not what was announced; the store has no part in it."""


class ObjectTooLargeError(ObjectStoreError):
    """An object is larger than the limit."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a request is about, for people."""

    endpoint: str
    """URL of the server."""
    bucket: str
    """Name of the bucket."""
    key: str | None = None
    """Name of the object; None for the bucket itself."""

    def __str__(self) -> str:
        bucket = f"bucket {self.bucket} at {self.endpoint}"
        return bucket if self.key is None else f"{self.key} in {bucket}"


CLIENT_FAILURES: Final = (BotoCoreError, ClientError, ResponseParserError, aiohttp.ClientError)
"""Everything that a request may raise because of the server or the network."""

_TRANSIENT_CODES: Final = frozenset(
    {
        "ConditionalRequestConflict",
        "OperationAborted",
        "RequestTimeout",
        "RequestTimeoutException",
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)
"""Codes that ask for the same request again whatever their status is (RequestTimeout has 400, the aborted ones 409)."""

_TRANSIENT_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})

_DAMAGED_CODES: Final = frozenset({"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"})

_DENIED: Final = (
    AccessDeniedError,
    "access denied: check LAYER_STORE_ACCESS_KEY, LAYER_STORE_SECRET_KEY, the user's rights and this machine's clock",
)

_REFUSALS: Final[Mapping[int, tuple[type[ObjectStoreError], str]]] = {
    401: _DENIED,
    403: _DENIED,
    404: (ObjectMissingError, "there is no such object"),
    412: (PreconditionFailedError, "a condition of the request does not hold"),
}
"""What the statuses of refusals mean, where the code says nothing more particular."""

_TEXT_LIMIT: Final = 300
"""Longest text of a server that is repeated, in characters."""


def translate(error: Exception, *, doing: str, place: Place) -> ObjectStoreError:
    """Say in the suite's own terms why a request failed.

    Parameters
    ----------
    error
        One of `CLIENT_FAILURES`.
    doing
        What the request was for, such as `uploading`.
    place
        What it was about.
    """
    what = f"{doing} {place}"
    if isinstance(error, ClientError):
        return _translate_answer(error.response, what=what, place=place)
    if isinstance(error, SSLError):
        return StoreRefusedError(f"{what}: no secure connection: {_cause(error)}: check the server's certificate")
    if isinstance(error, EndpointError | HTTPClientError | IncompleteReadError | aiohttp.ClientError):
        return StoreUnavailableError(f"{what}: the connection failed: {_cause(error)}: is the server up and reachable?")
    if isinstance(error, ResponseParserError):
        return StoreRefusedError(f"{what}: the answer is not S3: check LAYER_STORE_ENDPOINT")
    return StoreRefusedError(f"{what}: the request cannot be sent: {_cause(error)}")


def _translate_answer(response: dict[str, Any], *, what: str, place: Place) -> ObjectStoreError:
    code = str(response.get("Error", {}).get("Code") or "")
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    # The answer to a HEAD has no body, and its code is the status.
    reason = f"HTTP {status}" if code in ("", str(status)) else f"HTTP {status} {code}"
    if code == "NoSuchBucket" or (status == 404 and place.key is None):  # noqa: PLR2004 - as everybody knows it
        return BucketMissingError(f"{what}: there is no such bucket: create it, or check LAYER_STORE_BUCKET")
    if code in _TRANSIENT_CODES or status in _TRANSIENT_STATUSES:
        return StoreUnavailableError(f"{what}: the server is failing or overloaded: {reason}")
    if code in _DAMAGED_CODES:
        return ChecksumMismatchError(f"{what}: the content arrived damaged ({reason}): check network and memory")
    if status in _REFUSALS:
        kind, text = _REFUSALS[status]
        return kind(f"{what}: {text} ({reason})")
    text = str(response.get("Error", {}).get("Message") or "no reason given")
    return StoreRefusedError(f"{what}: refused ({reason}): {text[:_TEXT_LIMIT]}")


def _cause(error: Exception) -> str:
    # botocore's own texts name the whole URL; the cause says what happened.
    cause = getattr(error, "kwargs", {}).get("error") or error
    return f"{type(cause).__name__}: {str(cause)[:_TEXT_LIMIT]}" if str(cause) else type(cause).__name__
