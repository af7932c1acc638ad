"""What refers to an image: signatures, attestations and the like (OCI distribution specification, "Listing Referrers").

A registry without the API for it has, by the same specification, an index under a tag made of the image's digest.
"""

import re
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError
from yarl import URL

from services.common.digest import Digest
from services.registry.documents import INDEX_TYPES, IndexWire
from services.registry.errors import InvalidAnswerError
from services.registry.manifests import MANIFEST_LIMIT
from services.registry.reference import ImageReference
from services.registry.transport import Request, Transport

__all__ = ["Referrer", "list_referrers", "read_referrers", "referrers_tag"]

_PAGES: Final = 10
_NO_API: Final = (404, 405, 501)
"""How registries answer that do not know the API; most not in the form of their other errors."""
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')


@dataclass(frozen=True, slots=True, kw_only=True)
class Referrer:
    """A manifest that refers to an image."""

    digest: Digest
    """SHA-256 of the manifest."""
    artifact_type: str
    """What it is; empty where it is not said."""


def referrers_tag(digest: Digest) -> str:
    """Return the tag that has the referrers of an image where a registry has no API for them."""
    return f"sha256-{digest}"


async def list_referrers(transport: Transport, reference: ImageReference) -> list[Referrer] | None:
    """Return what refers to an image that is named by its digest; None where the registry has no API to tell.

    Raises
    ------
    InvalidAnswerError
        An answer is not of its form, or there is no end of pages.
    RegistryError
        The registry failed or refused.
    """
    request = Request(
        reference=reference,
        url=URL(f"{reference.api_url}/{reference.repository}/referrers/{reference.version}"),
        what=f"listing what refers to {reference.version} in {reference.authority}/{reference.repository}",
        headers={"Accept": INDEX_TYPES[0]},
    )
    found: list[Referrer] = []
    for _ in range(_PAGES):
        page = await _page(transport, request)
        if page is None:
            return None
        content, link = page
        found += read_referrers(content, where=request.what)
        following = _NEXT.search(link)
        if following is None:
            return found
        request = request.redirected(following[1])
    raise InvalidAnswerError(f"{request.what}: more than {_PAGES} pages, which is no honest answer")


async def _page(transport: Transport, request: Request) -> tuple[bytes, str] | None:
    async for attempt in transport.attempts():
        with attempt:
            async with transport.send(request, accepted=(200, *_NO_API)) as answer:
                if answer.status in _NO_API:
                    return None
                return await answer.body(MANIFEST_LIMIT), answer.headers.get("Link", "")
    raise AssertionError  # attempts end with a result or an error


def read_referrers(content: bytes, *, where: str) -> list[Referrer]:
    """Read an index of what refers to an image.

    Raises
    ------
    InvalidAnswerError
        It is none.
    """
    try:
        index = IndexWire.model_validate_json(content)
    except ValidationError:
        raise InvalidAnswerError(f"{where}: this is no index: what the registry holds is damaged") from None
    return [
        Referrer(digest=Digest.from_oci(entry.digest), artifact_type=entry.artifact_type or "")
        for entry in index.manifests
    ]
