"""Who may announce layers and change what the publisher does: whoever shows the token."""

import hmac
from typing import Final

from aiohttp import web
from pydantic import SecretStr

from services.publisher.errors import PublisherError

__all__ = ["TokenCheck", "TokenRefusedError", "of_header"]

_QUERY: Final = "token"
"""Ceph RGW sends no headers of one's choice; the token is part of the URL that it is given."""


def of_header(header: str) -> tuple[str, ...]:
    """Return what of an Authorization header may be a token: the whole, or what follows the scheme."""
    scheme, _, credentials = header.partition(" ")
    return (header, credentials.strip()) if scheme.lower() == "bearer" else (header,)


class TokenRefusedError(PublisherError):
    """A request that needs the token does not show it."""

    def __init__(self) -> None:
        super().__init__("the token is missing or wrong")


class TokenCheck:
    """Compares what a request shows with the token, in a time that tells nothing about it.

    Parameters
    ----------
    token
        The token. One of two words is a whole Authorization header, as for MinIO's `auth_token`.
    """

    def __init__(self, token: SecretStr) -> None:
        self._token = token.get_secret_value().encode()

    def passes(self, request: web.BaseRequest) -> bool:
        """Whether a request shows the token, in its Authorization header or in the query of its URL."""
        return self.accepts(request.headers.get("Authorization", ""), request.query.get(_QUERY, ""))

    def demand(self, request: web.BaseRequest) -> None:
        """Raise unless a request shows the token.

        Raises
        ------
        TokenRefusedError
            It does not.
        """
        if not self.passes(request):
            raise TokenRefusedError

    def accepts(self, header: str, query: str) -> bool:
        """Whether an Authorization header or the token of a query is right."""
        shown = [*of_header(header), query]
        # Every one is compared, so that the time does not tell which came close.
        return sum(hmac.compare_digest(text.encode(errors="surrogateescape"), self._token) for text in shown) > 0
