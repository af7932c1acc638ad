"""Bodies of requests: bounded in size and time."""

import asyncio
from typing import Final

from aiohttp import ClientPayloadError, web

__all__ = ["BodyError", "read_body"]

_SECONDS: Final = 30
"""Seconds that a body may take to arrive."""


class BodyError(Exception):
    """A body is not taken.

    Parameters
    ----------
    status
        The HTTP status that says so.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


async def read_body(request: web.Request, *, what: str, limit: int) -> bytes:
    """Return a request's body.

    Parameters
    ----------
    what
        What it is, for errors.
    limit
        Its largest size, in bytes; of a compressed one, uncompressed.

    Raises
    ------
    BodyError
        It is too large, does not arrive in time, or cannot be decompressed.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(_SECONDS):
            if request.content_length is None or request.content_length <= limit:
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > limit:
                        break
                else:
                    return bytes(body)
    except TimeoutError:
        raise BodyError(408, f"{what} did not arrive within {_SECONDS} s") from None
    except (web.RequestPayloadError, ClientPayloadError, ConnectionError):
        raise BodyError(400, f"{what} did not arrive whole, or cannot be decompressed") from None
    raise BodyError(413, f"{what} has at most {limit} bytes")
