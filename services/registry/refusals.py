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

__all__ = ["refusal", "retry_after"]

_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})

_MISSING: Final = (404, 410)
_UNKNOWN: Final = frozenset({"BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"})
"""Codes of what a registry knows that it does not have; the last is Harbor's."""

_BODY_LIMIT: Final = 64 << 10
_ERRORS: Final = 3
"""Most errors of one answer that are looked at."""
_TEXT_LIMIT: Final = 200
"""Longest text of a registry that is repeated, in characters."""


async def refusal(answer: Answer, *, secrets: tuple[str, ...] = (), source: str | None = None) -> RegistryError:
    """Say in the suite's own terms what an answer that is no success means.

    Parameters
    ----------
    answer
        The answer.
    secrets
        What must not be repeated, should the registry repeat it.
    source
        Where the credentials were found that the request was made with; None where there were none.
    """
    status, what, where = answer.status, answer.what, place_of(answer.url)
    reason, codes = await _reason(answer, secrets)
    if status in _TRANSIENT:
        wait = retry_after(answer.headers.get("Retry-After"))
        advice = "try again later" if wait is None else f"try again in {wait:.0f} s"
        said = "too many requests" if status == 429 else "the server is failing or overloaded"  # noqa: PLR2004
        return RegistryUnavailableError(f"{what}: {where}: {said} ({reason}): {advice}", retry_after=wait)
    user, to_user = ("the user", "") if source is None else (f"the user of {source}", f" to the user of {source}")
    if status == 401:  # noqa: PLR2004
        return AuthenticationError(f"{what}: {where} does not accept {user} ({reason}): docker login there again")
    if status == 403:  # noqa: PLR2004
        return AccessDeniedError(f"{what}: {where} does not allow it{to_user} ({reason}): ask for the right to do it")
    if status in _MISSING and codes & _UNKNOWN:
        return ImageMissingError(f"{what}: {where} does not have it ({reason}): check the name")
    if status in _MISSING:
        # A proxy, a registry that is being set up, or another program: nothing follows from it.
        return RegistryRefusedError(
            f"{what}: {where} says that it does not have it, not as registries do ({reason}): check name and port"
        )
    # What is no registry's own form of refusal is often a server of TLS that is spoken to in the clear.
    tls = answer.url.scheme == "http" and reason == f"HTTP {status}"
    hint = "does it speak TLS? then leave out --insecure" if tls else "check what is asked for"
    return RegistryRefusedError(f"{what}: {where} refused ({reason}): {hint}")


async def _reason(answer: Answer, secrets: tuple[str, ...]) -> tuple[str, set[str]]:
    """Return status, codes and messages of an answer in printable characters, and the codes."""
    try:
        document = json.loads(await answer.body(_BODY_LIMIT))
        errors = [(str(error.get("code")), error.get("message")) for error in document["errors"][:_ERRORS]]
    except (
        InvalidAnswerError,
        RegistryUnavailableError,
        ValueError,
        RecursionError,
        LookupError,
        TypeError,
        AttributeError,
    ):
        return f"HTTP {answer.status}", set()  # the body explains; without it the status has to do
    told = "; ".join(f"{code}: {message}" for code, message in errors)
    for secret in filter(None, secrets):
        told = told.replace(secret, "***")
    shown = "".join(sign if sign.isprintable() else "?" for sign in told[:_TEXT_LIMIT])
    return f"HTTP {answer.status} {shown}", {code for code, _ in errors}


def retry_after(value: str | None) -> float | None:
    """Return how many seconds the header asks to wait, which holds seconds or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
