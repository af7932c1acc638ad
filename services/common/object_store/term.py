"""Requests that the server refuses once a term is over, however long they were on their way.

A program that was stopped, or whose network was, can send a request long after it has lost the right to. Nothing that
it looks at beforehand helps, since it may be stopped right after having looked. So the request itself says until when
it holds, by Signature Version 4 in the query, as presigned URLs have it; the server compares that with its own clock.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import botocore.auth

__all__ = ["TERM_SIGNER", "Term", "has_term", "within"]

TERM_SIGNER: Final = "s3v4-term"
"""What botocore is told to sign such a request with."""


class Term(NamedTuple):
    """A span of time by the server's clock."""

    begins: int
    """Unix seconds."""
    seconds: int
    """At least one."""


_term: ContextVar[Term | None] = ContextVar("term", default=None)


@contextmanager
def within(term: Term | None) -> Iterator[None]:
    """Have the requests that this task sends meanwhile hold for a term; None leaves them as they are."""
    before = _term.set(term)
    try:
        yield
    finally:
        _term.reset(before)


def has_term() -> bool:
    """Tell whether requests hold for a term now."""
    return _term.get() is not None


class _TermAuth(botocore.auth.S3SigV4QueryAuth):  # type: ignore[misc] # botocore has no types
    """Signs by the query, from the beginning of the term on and not from now."""

    def _modify_request_before_signing(self, request: Any) -> None:  # noqa: ANN401 - botocore has no types
        term = _term.get()
        if term is None:
            raise AssertionError("only requests with a term are signed so")
        begins = datetime.fromtimestamp(term.begins, UTC)
        request.context["timestamp"] = begins.strftime(botocore.auth.SIGV4_TIMESTAMP)
        self._expires = term.seconds
        # A presigned URL has no body; botocore would take it for parameters.
        body, request.data = request.data, b""
        super()._modify_request_before_signing(request)
        request.data = body


botocore.auth.AUTH_TYPE_MAPS[TERM_SIGNER] = _TermAuth
