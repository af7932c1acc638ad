"""Requests for manifests: each to one place, be it the registry or a mirror."""

import asyncio
import hashlib
import re
from typing import Final

from yarl import URL

from services.common.digest import Digest
from services.registry.documents import INDEX_TYPES, MANIFEST_ACCEPT, MANIFEST_TYPES
from services.registry.errors import DigestMismatchError
from services.registry.http import Answer
from services.registry.images import ManifestHead, RawManifest
from services.registry.manifests import MANIFEST_LIMIT, media_type_of
from services.registry.reference import ImageReference
from services.registry.transport import Request, Transport

__all__ = ["MANIFESTS", "get_manifest", "head_manifest"]

MANIFESTS: Final = frozenset((*INDEX_TYPES, *MANIFEST_TYPES))
"""Types of what a reference may name."""

_HEAD_ANSWERS: Final = (200, 404, 405, 410, 501)
"""What may be made of the head of an answer, or else of an answer with content."""

_SHA256: Final = re.compile(r"sha256:[0-9a-f]{64}")
_CONTENT_TYPE: Final = re.compile(r"[ \t]*([^; \t]*)")


def _request(method: str, reference: ImageReference) -> Request:
    return Request(
        reference=reference,
        url=URL(f"{reference.api_url}/{reference.repository}/manifests/{reference.version}"),
        what=f"reading the manifest of {reference.name}",
        method=method,
        headers={"Accept": MANIFEST_ACCEPT},
    )


async def get_manifest(transport: Transport, reference: ImageReference) -> RawManifest:
    """Return what a reference names, its digest verified.

    Raises
    ------
    DigestMismatchError
        The content does not have the digest that was asked for, or that the registry says.
    RegistryError
        The registry failed or refused, or what it has is no manifest.
    """
    async for attempt in transport.attempts():
        with attempt:
            async with transport.send(_request("GET", reference), accepted=(200,)) as answer:
                return await _read_manifest(answer, reference)
    raise AssertionError  # attempts end with a result or an error


async def head_manifest(transport: Transport, reference: ImageReference) -> ManifestHead | None:
    """Return what a reference names by a request without content; None where the head of the answer does not say all.

    Errors as `get_manifest`.
    """
    async for attempt in transport.attempts():
        with attempt:
            async with transport.send(_request("HEAD", reference), accepted=_HEAD_ANSWERS) as answer:
                return _read_head(answer, reference) if answer.status == 200 else None  # noqa: PLR2004
    raise AssertionError  # attempts end with a result or an error


def _read_head(answer: Answer, reference: ImageReference) -> ManifestHead | None:
    told = answer.headers.get("Docker-Content-Digest", "")
    declared = _CONTENT_TYPE.match(answer.headers.get("Content-Type", ""))
    media_type = "" if declared is None else declared[1]
    if not _SHA256.fullmatch(told) or media_type not in MANIFESTS:
        return None
    digest = Digest.from_oci(told)
    if reference.digest not in (None, digest):
        raise DigestMismatchError(
            f"asked for {reference.name}, the registry answers with {digest.oci}: ask those who run it"
        )
    return ManifestHead(digest=digest, media_type=media_type)


async def _read_manifest(answer: Answer, reference: ImageReference) -> RawManifest:
    content = await answer.body(MANIFEST_LIMIT)
    hashed = await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())
    told = answer.headers.get("Docker-Content-Digest")
    for expected, whose in ((told, "the registry says"), (reference.digest and reference.digest.oci, "was asked for")):
        if expected and expected.startswith("sha256:") and expected != f"sha256:{hashed}":
            raise DigestMismatchError(
                f"the manifest of {reference.name} has the digest sha256:{hashed}, {whose} {expected[:80]}: "
                "it is damaged or forged: push the image anew"
            )
    declared = _CONTENT_TYPE.match(answer.headers.get("Content-Type", ""))
    media_type = media_type_of(
        content, "" if declared is None else declared[1], where=f"the manifest of {reference.name}"
    )
    return RawManifest(content=content, media_type=media_type, digest=Digest(hashed))
