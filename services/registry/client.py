"""What the converter uses of registries."""

import difflib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Final, Self

from services.common.digest import Digest
from services.registry.authentication import Authenticator
from services.registry.blobs import stream_blob, verified
from services.registry.documents import INDEX_TYPES, MANIFEST_ACCEPT
from services.registry.errors import (
    ImageMissingError,
    PlatformMissingError,
    RegistryError,
    UnsupportedImageError,
)
from services.registry.http import Http
from services.registry.images import Candidate, Image, ManifestHead, RawManifest, choosable, join_layers
from services.registry.limits import Limits
from services.registry.manifest_requests import MANIFESTS, get_manifest, head_manifest
from services.registry.manifests import read_config, read_index, read_manifest
from services.registry.options import RegistryOptions
from services.registry.places import Places
from services.registry.platform import Platform
from services.registry.reference import ImageReference
from services.registry.referrers import Referrer, list_referrers, read_referrers, referrers_tag
from services.registry.tags import list_tags
from services.registry.transport import Transport
from services.registry.uploads import Uploader

__all__ = ["RegistryClient"]

_SUGGESTIONS: Final = 5

_INDEXES: Final = 32
"""Most indexes that are read for one image: an index may name others in place of images."""


class RegistryClient:
    """Reads images from registries and writes small ones to them. Used as `async with`, from one event loop.

    Parameters
    ----------
    options
        How registries are spoken to.
    """

    def __init__(self, *, options: RegistryOptions) -> None:
        self._http = Http(options=options)
        authenticator = Authenticator(http=self._http, credentials=options.credentials)
        self._limits = Limits(concurrency=options.concurrency, patience=options.longest_wait)

        def transport(attempts: int) -> Transport:
            return Transport(
                http=self._http,
                authenticator=authenticator,
                limits=self._limits,
                options=replace(options, attempts=attempts),
            )

        itself = transport(options.attempts)
        self._places = Places(transport=itself, mirrored=transport(1), options=options)
        self._uploads = Uploader(transport=itself)
        self._answering: set[tuple[str, str]] = set()
        """Repositories that have answered HEAD as they should, who the user is included."""

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._http.__aexit__(*failure)

    def excuse(self, reference: ImageReference) -> None:
        """Let one request about an image go although its registry, or the mirror, wants a pause: somebody insists."""
        for place in self._places.of(reference):
            self._limits.of(place.authority).excuse()

    def has_mirror(self, reference: ImageReference) -> bool:
        """Tell whether an image is pulled from another place than its registry."""
        return len(self._places.of(reference)) > 1

    async def image(self, reference: ImageReference, platform: Platform) -> Image:
        """Return the image for a platform, its configuration read and verified.

        Raises
        ------
        PlatformMissingError
            The image is not there for the platform; the text lists those that it is there for.
        RegistryError
            As `manifest`.
        """
        return await self.image_in(reference, await self.manifest(reference), platform)

    async def image_in(self, reference: ImageReference, manifest: RawManifest, platform: Platform) -> Image:
        """Return the image for a platform from what `manifest` has returned for its reference; raises as `image`."""
        where = reference.name
        if manifest.media_type in INDEX_TYPES:
            chosen = _choose(await self._candidates(reference, manifest), platform, where=where)
            image = await self._chosen(reference, chosen)
        else:
            image = await self._read(reference, manifest, None)
        if not platform.runs(image.platform):
            raise PlatformMissingError(
                f"{where} is for {image.platform}, not for {platform}: give --platform {image.platform} if you mean it"
            )
        return image

    async def images(self, reference: ImageReference) -> list[Image]:
        """Return the images for all platforms, in the index's order; raises as `image`."""
        manifest = await self.manifest(reference)
        if manifest.media_type not in INDEX_TYPES:
            return [await self._read(reference, manifest, None)]
        return [await self._chosen(reference, candidate) for candidate in await self._candidates(reference, manifest)]

    async def manifest(self, reference: ImageReference) -> RawManifest:
        """Return what a reference names, be it an image or an index, with its digest verified.

        Raises
        ------
        ImageMissingError
            There is no such image; the text suggests tags that there are.
        DigestMismatchError
            The content does not have the digest that was asked for, or that the registry says.
        InvalidAnswerError
            It is no manifest, or larger than any honest one.
        UnsupportedImageError
            It is no image, or one of schema 1.
        RegistryError
            The registry failed or refused.
        """
        try:
            return await self._places.read(reference, get_manifest)
        except ImageMissingError as error:
            raise ImageMissingError(f"{error}{await self._suggestion(reference)}") from None

    async def head(self, reference: ImageReference) -> ManifestHead:
        """Return what a reference names now, by one request without content where the registry does as it should.

        Raises
        ------
        ImageMissingError
            The registry knows that there is no such image: it has answered so itself, to a user whom it accepts.
        InvalidAnswerError, UnsupportedImageError
            As `manifest`.
        RegistryError
            The registry failed or refused; whether there is such an image is not known.
        """
        repository = (reference.authority, reference.repository)
        if repository in self._answering and reference.digest is None:
            what = f"reading the manifest of {reference.name}"
            quick = await self._places.quick_head(reference, accept=MANIFEST_ACCEPT, what=what)
            if quick is not None and quick[1] in MANIFESTS:
                return ManifestHead(digest=quick[0], media_type=quick[1])
        found = await self._places.read(reference, head_manifest)
        if found is not None:
            self._answering.add(repository)
        else:
            # The body of an answer says what its head does not, an error's above all.
            manifest = await self._places.read(reference, get_manifest)
            found = ManifestHead(digest=manifest.digest, media_type=manifest.media_type)
        return found

    async def artifact(self, reference: ImageReference) -> RawManifest | None:
        """Return the manifest of what accompanies an image, such as its signatures; None where there is none.

        Raises
        ------
        RegistryError
            As `manifest`.
        """
        try:
            return await self._places.read(reference, get_manifest)
        except ImageMissingError:
            return None

    async def referrers(self, reference: ImageReference, digest: Digest) -> list[Referrer]:
        """Return what refers to the image of a digest in an image's repository.

        Raises
        ------
        RegistryError
            As `list_referrers` and `manifest`.
        """
        named = replace(reference, tag=None, digest=digest)
        found = await self._places.read(named, list_referrers)
        if found is not None:
            return found
        index = await self.artifact(replace(reference, tag=referrers_tag(digest), digest=None))
        return [] if index is None else read_referrers(index.content, where=f"what refers to {named.name}")

    def blob(self, reference: ImageReference, digest: Digest, size: int) -> AsyncGenerator[bytes, None]:
        """Stream a blob of an image's repository, verified; close it (`aclosing`) if it is left early.

        Raises
        ------
        DigestMismatchError
            The content is not what digest and size say.
        RegistryError
            As `stream_blob`.
        """
        return verified(self.unverified_blob(reference, digest, size), reference, digest)

    def unverified_blob(
        self, reference: ImageReference, digest: Digest, size: int, *, start: int = 0
    ) -> AsyncGenerator[bytes, None]:
        """Stream a blob for somebody who hashes it anyway; see `stream_blob`. Close it if it is left early."""
        return self._places.stream(reference, digest, size, start=start)

    def unverified_blob_of_registry(
        self, reference: ImageReference, digest: Digest, size: int
    ) -> AsyncGenerator[bytes, None]:
        """Stream a blob as `unverified_blob` does, but not from a mirror, which has given a damaged one."""
        return self._places.stream_from_registry(reference, digest, size, start=0)

    async def content(self, reference: ImageReference, digest: Digest, size: int) -> bytes:
        """Return a small blob of an image's repository, from the registry itself where a mirror gives a damaged one.

        Raises
        ------
        RegistryError
            As `blob`.
        """

        async def read(transport: Transport, place: ImageReference) -> bytes:
            async with aclosing(verified(stream_blob(transport, place, digest, size), place, digest)) as pieces:
                return b"".join([piece async for piece in pieces])

        return await self._places.read(reference, read)

    async def tags(self, reference: ImageReference) -> list[str]:
        """Return the tags of an image's repository; see `list_tags`."""
        return await self._places.read(reference, list_tags)

    async def push_blob(self, reference: ImageReference, content: bytes) -> Digest:
        """Upload a small blob to an image's repository unless it is there; see `Uploader.push_blob`."""
        return await self._uploads.push_blob(self._places.spoken(reference), content)

    async def push_manifest(self, reference: ImageReference, content: bytes, media_type: str) -> Digest:
        """Upload a manifest or an index, under the reference's digest or tag; see `Uploader.push_manifest`."""
        return await self._uploads.push_manifest(self._places.spoken(reference), content, media_type)

    async def _candidates(self, reference: ImageReference, index: RawManifest) -> tuple[Candidate, ...]:
        """Return the images of an index, and of the indexes that it names in place of images."""
        found: dict[Digest, Candidate] = {}
        waiting, read = list(read_index(index.content, where=reference.name)), 1
        while waiting:
            candidate = waiting.pop(0)
            if not candidate.is_index:
                found.setdefault(candidate.digest, candidate)
                continue
            read += 1
            if read > _INDEXES:
                raise UnsupportedImageError(
                    f"{reference.name} is an index of more than {_INDEXES} indexes: name the image by its digest"
                )
            where = f"{reference.name} ({candidate.digest.oci})"
            nested = await self.manifest(replace(reference, digest=candidate.digest))
            try:
                named = read_index(nested.content, where=where)
            except UnsupportedImageError:
                continue  # of signatures, say, beside the images
            waiting[:0] = [replace(each, platform=each.platform or candidate.platform) for each in named]
        if not found:
            raise UnsupportedImageError(f"{reference.name} names no image, nor do the indexes in it: check the name")
        return choosable(tuple(found.values()))

    async def _chosen(self, reference: ImageReference, candidate: Candidate) -> Image:
        manifest = await self.manifest(replace(reference, digest=candidate.digest))
        return await self._read(reference, manifest, candidate.platform)

    async def _read(self, reference: ImageReference, manifest: RawManifest, listed: Platform | None) -> Image:
        """Read an image; `listed` is what an index says that it is for."""
        reference = self._places.spoken(reference)
        where = f"{reference.name} ({'' if listed is None else f'{listed}, '}{manifest.digest.oci})"
        content = read_manifest(manifest.content, where=where)
        config = await self.content(reference, content.config_digest, content.config_size)
        platform, diff_ids = read_config(config, where=f"the configuration of {where}")
        return Image(
            reference=reference,
            platform=platform if listed is None else platform.refined(listed),
            manifest=manifest.content,
            manifest_media_type=manifest.media_type,
            manifest_digest=manifest.digest,
            config=config,
            config_digest=content.config_digest,
            layers=join_layers(content.layers, diff_ids, where=where),
        )

    async def _suggestion(self, reference: ImageReference) -> str:
        if reference.tag is None or reference.digest is not None:
            return ""
        try:
            tags = await self.tags(reference)
        except RegistryError:
            return ""  # the image is missing, whatever else is wrong
        near = difflib.get_close_matches(reference.tag, tags, n=_SUGGESTIONS, cutoff=0.3) or tags[-_SUGGESTIONS:]
        return f"; the repository has {', '.join(near)}" if near else ""


def _choose(candidates: tuple[Candidate, ...], platform: Platform, *, where: str) -> Candidate:
    named = [(candidate, candidate.platform) for candidate in candidates if candidate.platform is not None]
    best = platform.best([found for _, found in named])
    if best is not None:
        return named[best][0]
    # An index of one image need not say what it is for; the image's configuration does.
    if len(candidates) == 1 and not named:
        return candidates[0]
    there = ", ".join(sorted({str(found) for _, found in named})) or "no platform"
    raise PlatformMissingError(f"{where} is not there for {platform} but for {there}: give --platform")
