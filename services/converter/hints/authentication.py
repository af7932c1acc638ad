"""Whether who delivers is who an endpoint is for."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from services.converter.hints.dialects.parse import Kind
from services.converter.hints.endpoints import Endpoint

__all__ = ["shown_in_header", "shown_in_url", "signed"]

_BY_URL: Final = frozenset({Kind.QUAY, Kind.DOCKER_HUB})
"""Kinds that send no header of one's choice: their secret is a part of the URL that they are given."""

_NOBODY: Final = "-" * 32
"""Compared with where there is no endpoint of a name, so that the time does not tell."""


def shown_in_header(endpoint: Endpoint | None, authorization: str) -> bool:
    """Whether an `Authorization` header shows the endpoint's secret: as a bearer token, or as the whole header.

    The second is how Harbor sends its "Auth Header".
    """
    scheme, _, credentials = authorization.partition(" ")
    shown = [authorization, credentials.strip() if scheme.lower() == "bearer" else ""]
    # Each is compared, so that the time does not tell which came close.
    return sum(_same(endpoint, text) for text in shown) > 0


def shown_in_url(endpoint: Endpoint | None, *texts: str) -> bool:
    """Whether one of these parts of a URL is the secret of an endpoint whose kind can show it nowhere else."""
    same = sum(_same(endpoint, text) for text in texts) > 0
    return same and endpoint is not None and endpoint.kind in _BY_URL


def signed(endpoint: Endpoint, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether the body has been signed with the endpoint's secret, as GitHub does (HMAC-SHA256, of its raw bytes)."""
    expected = hmac.new(endpoint.secret.get_secret_value().encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(_bytes(headers.get("X-Hub-Signature-256", "")), f"sha256={expected}".encode())


def _same(endpoint: Endpoint | None, text: str) -> bool:
    secret = _NOBODY if endpoint is None else endpoint.secret.get_secret_value()
    return hmac.compare_digest(_bytes(text), secret.encode()) and endpoint is not None


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
