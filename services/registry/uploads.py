"""Uploads of what is small: a thin image's configuration, its one layer, its manifest."""

import asyncio
import hashlib
from typing import Final

from yarl import URL

from services.common.digest import Digest
from services.registry.errors import DigestMismatchError
from services.registry.reference import ImageReference
from services.registry.transport import Request, Transport

__all__ = ["Uploader"]

_ACCEPTED: Final = 202
_DONE: Final = (201, 200, 202, 204)
"""How registries say that they have taken something: the first by the specification, others elsewhere (Quay)."""
_MISSING: Final = 404
_OK: Final = 200


class Uploader:
    """Uploads blobs and manifests.

    Parameters
    ----------
    transport
        Sends the requests.
    """

    def __init__(self, *, transport: Transport) -> None:
        self._transport = transport

    async def push_blob(self, reference: ImageReference, content: bytes) -> Digest:
        """Upload a blob to an image's repository unless it is there.

        Raises
        ------
        DigestMismatchError
            The registry has stored something else.
        RegistryError
            The registry failed or refused.
        """
        digest = await _hash(content)
        async for attempt in self._transport.attempts():
            with attempt:
                if not await self._has(reference, digest):
                    # A broken upload cannot be trusted to go on, so another attempt begins with a new one.
                    await self._upload(reference, digest, content)
        return digest

    async def push_manifest(self, reference: ImageReference, content: bytes, media_type: str) -> Digest:
        """Upload a manifest or an index, under the reference's digest or tag.

        Parameters
        ----------
        reference
            Where to; with a digest it must be the content's.
        content
            The bytes.
        media_type
            What they are.

        Raises
        ------
        DigestMismatchError
            The reference has another digest, or the registry has stored something else.
        RegistryError
            The registry failed or refused.
        """
        digest = await _hash(content)
        if reference.digest is not None and reference.digest != digest:
            raise DigestMismatchError(
                f"the manifest for {reference.name} has the digest {digest.oci}: push it under that, or under a tag"
            )
        request = Request(
            reference=reference,
            url=URL(f"{reference.api_url}/{reference.repository}/manifests/{reference.version}"),
            what=f"pushing the manifest of {reference.name}",
            method="PUT",
            headers={"Content-Type": media_type},
            data=content,
        )
        async for attempt in self._transport.attempts():
            with attempt:
                async with self._transport.send(request, accepted=_DONE) as answer:
                    _check(answer.headers.get("Docker-Content-Digest"), digest, request.what)
        return digest

    async def _has(self, reference: ImageReference, digest: Digest) -> bool:
        request = Request(
            reference=reference,
            url=URL(f"{reference.api_url}/{reference.repository}/blobs/{digest.oci}"),
            what=f"looking for blob {digest.oci} of {reference.name}",
            method="HEAD",
        )
        async with self._transport.send(request, accepted=(_OK, _MISSING)) as answer:
            return answer.status == _OK

    async def _upload(self, reference: ImageReference, digest: Digest, content: bytes) -> None:
        what = f"pushing blob {digest.oci} of {reference.name}"
        url = URL(f"{reference.api_url}/{reference.repository}/blobs/uploads/")
        begin = Request(reference=reference, url=url, what=what, method="POST")
        async with self._transport.send(begin, accepted=(_ACCEPTED,)) as answer:
            place = begin.redirected(answer.headers.get("Location"))
        finish = Request(
            reference=reference,
            url=_with_digest(place.url, digest),
            what=what,
            method="PUT",
            headers={"Content-Type": "application/octet-stream"},
            data=content,
        )
        async with self._transport.send(finish, accepted=_DONE) as answer:
            _check(answer.headers.get("Docker-Content-Digest"), digest, what)


async def _hash(content: bytes) -> Digest:
    return Digest(await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest()))


def _with_digest(url: URL, digest: Digest) -> URL:
    """Add the digest to the query, which is the registry's own and stays as it is written."""
    text = str(url.with_fragment(None))
    return URL(f"{text}{'&' if '?' in text else '?'}digest={digest.oci}", encoded=True)


def _check(told: str | None, digest: Digest, what: str) -> None:
    if told is None or not told.startswith("sha256:"):
        return
    if told != digest.oci:
        raise DigestMismatchError(f"{what}: the registry has stored {told[:80]} instead: push it again")
