"""What the statuses of a registry's answers mean (OCI distribution specification, error codes)."""

import email.utils
import json
from datetime import UTC, datetime
from typing import Final

from services.registry.errors import (
    AccessDeniedError,
    AuthenticationError,
    ImageMissingError,
    InvalidAnswerError,
    RegistryError,
    RegistryRefusedError,
    RegistryUnavailableError,
)
from services.registry.http import Answer, place_of

__all__ = ["refusal"]

_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})

_BODY_LIMIT: Final = 64 << 10
_TEXT_LIMIT: Final = 200
"""Longest text of a registry that is repeated, in characters."""


async def refusal(answer: Answer, *, secrets: tuple[str, ...] = ()) -> RegistryError:
    """Say in the suite's own terms what an answer that is no success means.

    Parameters
    ----------
    answer
        The answer.
    secrets
        What must not be repeated, should the registry repeat it.
    """
    status, what, where = answer.status, answer.what, place_of(answer.url)
    reason = await _reason(answer, secrets)
    if status in _TRANSIENT:
        wait = _retry_after(answer.headers.get("Retry-After"))
        advice = "try again later" if wait is None else f"try again in {wait:.0f} s"
        said = "too many requests" if status == 429 else "the server is failing or overloaded"  # noqa: PLR2004
        return RegistryUnavailableError(f"{what}: {where}: {said} ({reason}): {advice}", retry_after=wait)
    if status == 401:  # noqa: PLR2004
        return AuthenticationError(f"{what}: {where} does not accept the user ({reason}): docker login there again")
    if status == 403:  # noqa: PLR2004
        return AccessDeniedError(f"{what}: {where} does not allow it ({reason}): ask for the right to do it")
    if status in (404, 410):
        return ImageMissingError(f"{what}: {where} does not have it ({reason}): check the name")
    # What is no registry's own form of refusal is often a server of TLS that is spoken to in the clear.
    tls = answer.url.scheme == "http" and reason == f"HTTP {status}"
    hint = "does it speak TLS? then leave out --insecure" if tls else "check what is asked for"
    return RegistryRefusedError(f"{what}: {where} refused ({reason}): {hint}")


async def _reason(answer: Answer, secrets: tuple[str, ...]) -> str:
    """Return status, codes and messages of an answer, in printable characters."""
    try:
        document = json.loads(await answer.body(_BODY_LIMIT))
        errors = document["errors"]
        told = "; ".join(f"{error.get('code')}: {error.get('message')}" for error in errors[:3])
    except (
        InvalidAnswerError,
        RegistryUnavailableError,
        ValueError,
        RecursionError,
        LookupError,
        TypeError,
        AttributeError,
    ):
        return f"HTTP {answer.status}"  # the body explains; without it the status has to do
    for secret in filter(None, secrets):
        told = told.replace(secret, "***")
    return f"HTTP {answer.status} " + "".join(sign if sign.isprintable() else "?" for sign in told[:_TEXT_LIMIT])


def _retry_after(value: str | None) -> float | None:
    """Read seconds or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
