"""Tags of a repository, page by page."""

import json
import re
from typing import Final

from yarl import URL

from services.registry.errors import InvalidAnswerError
from services.registry.reference import ImageReference
from services.registry.transport import Request, Transport

__all__ = ["list_tags"]

_PAGES: Final = 1000
"""Most pages; registries give 50 to 1,000 tags on one, whatever they are asked for."""
_PAGE_SIZE: Final = 1000
_PAGE_LIMIT: Final = 4 << 20
"""Largest page, in bytes."""

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_NEXT = re.compile(r'<([^>]+)>(?:\s*;[^;,]*)*?\s*;\s*rel="?next"?', re.IGNORECASE)


async def list_tags(transport: Transport, reference: ImageReference) -> list[str]:
    """Return the tags of an image's repository, in the registry's order.

    Raises
    ------
    InvalidAnswerError
        A page is not of its form, or there is no end of pages.
    RegistryError
        The registry failed or refused.
    """
    what = f"listing the tags of {reference.authority}/{reference.repository}"
    url = URL(f"{reference.api_url}/{reference.repository}/tags/list?n={_PAGE_SIZE}")
    request = Request(reference=reference, url=url, what=what)
    found: dict[str, None] = {}
    asked = {url}
    for _ in range(_PAGES):
        content, link = await _page(transport, request)
        page = _read(content, what)
        following = _NEXT.search(link)
        if following is None:
            return list(found | dict.fromkeys(page))
        # A page may be empty, as where tags are hidden from the user.
        if page and found.keys() >= set(page):
            raise InvalidAnswerError(
                f"{what}: a page brought nothing new: the registry lists without end, ask those who run it"
            )
        found |= dict.fromkeys(page)
        request = request.redirected(following[1])
        if request.url in asked:
            raise InvalidAnswerError(
                f"{what}: a page names one before as the next: the registry lists without end, ask those who run it"
            )
        asked.add(request.url)
    raise InvalidAnswerError(f"{what}: more than {_PAGES} pages: the registry lists without end, ask those who run it")


async def _page(transport: Transport, request: Request) -> tuple[bytes, str]:
    async for attempt in transport.attempts():
        with attempt:
            async with transport.send(request, accepted=(200,)) as answer:
                return await answer.body(_PAGE_LIMIT), ", ".join(answer.headers.getall("Link", []))
    raise AssertionError  # attempts end with a result or an error


def _read(content: bytes, what: str) -> list[str]:
    try:
        tags = json.loads(content)["tags"] or []
        if all(isinstance(tag, str) and _TAG.fullmatch(tag) for tag in tags):
            return list(tags)
    except (ValueError, RecursionError, LookupError, TypeError):
        pass  # said below, as for tags that are none
    raise InvalidAnswerError(f"{what}: the answer is no list of tags: ask those who run the registry")
