"""From the registry to the object store, and on to the repository."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.common.digest import Digest
from services.common.object_store.errors import StreamMismatchError
from services.common.object_store.model import AnnouncedLayer
from services.common.object_store.store import ObjectStore
from services.common.publisher_api import PublisherApi, PublisherTimeoutError
from services.common.repository_name import RepositoryName
from services.common.together import all_of
from services.docker2cvmfs.progress import LayerProgress
from services.registry.blobs import mismatch
from services.registry.client import RegistryClient
from services.registry.images import Image, ImageLayer

__all__ = ["LayerOutcome", "Outcome", "Publication", "follow", "layers_of"]

_PARALLEL: Final = 3
"""Layers that are transferred at the same time."""


class Outcome(StrEnum):
    """What was done about a layer."""

    UPLOADED = "uploaded"
    """It was brought to the object store now."""
    STORED = "already uploaded"
    """It was in the object store."""
    FETCHED = "fetched by the publisher"
    """The publisher fetches it from the registry."""
    PUBLISHED = "already published"
    """It was in the repository."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOutcome:
    """A layer, and what was done about it."""

    layer: ImageLayer
    outcome: Outcome


def layers_of(images: Iterable[Image]) -> dict[Digest, tuple[Image, ImageLayer]]:
    """Return every layer of the images once, with an image that has it."""
    found: dict[Digest, tuple[Image, ImageLayer]] = {}
    for image in images:
        for layer in image.layers:
            found.setdefault(layer.digest, (image, layer))
    return found


class Publication:
    """Brings the layers of images to where the publisher finds them.

    Parameters
    ----------
    publisher
        Says what is published already; None if nobody can.
    """

    def __init__(
        self,
        *,
        registry: RegistryClient,
        store: ObjectStore,
        publisher: PublisherApi | None,
        repository: RepositoryName,
        progress: LayerProgress,
    ) -> None:
        self._registry = registry
        self._store = store
        self._publisher = publisher
        self._repository = repository
        self._progress = progress
        self._places = asyncio.Semaphore(_PARALLEL)

    async def upload(self, images: Iterable[Image]) -> list[LayerOutcome]:
        """Upload every layer that is neither published nor uploaded; a failure ends the others' transfers.

        Raises
        ------
        RegistryError
            A layer could not be downloaded.
        ObjectStoreError
            A layer could not be uploaded.
        PublisherApiError
            The publisher does not answer.
        """
        layers = layers_of(images)
        for _, layer in layers.values():
            self._progress.add(layer)
        return await all_of(self._bring(image, layer) for image, layer in layers.values())

    async def _bring(self, image: Image, layer: ImageLayer) -> LayerOutcome:
        async with self._places:
            outcome = await self._transfer(image, layer)
        self._progress.reached(layer.digest, outcome.value)
        return LayerOutcome(layer=layer, outcome=outcome)

    async def _transfer(self, image: Image, layer: ImageLayer) -> Outcome:
        if self._publisher is not None:
            status = await self._publisher.layer(layer.digest)
            if status is not None and status.is_published:
                return Outcome.PUBLISHED
        announced = AnnouncedLayer(
            digest=layer.digest,
            diff_id=layer.diff_id,
            size=layer.size,
            media_type=layer.media_type,
            repository=self._repository,
        )
        async with aclosing(self._download(image, layer)) as chunks:
            try:
                stored = await self._store.upload_stream(chunks, announced)
            except StreamMismatchError:
                raise mismatch(image.reference, layer.digest, "does not have this digest") from None
        return Outcome.UPLOADED if stored else Outcome.STORED

    async def _download(self, image: Image, layer: ImageLayer) -> AsyncGenerator[bytes, None]:
        self._progress.reached(layer.digest, "transferring")
        # The store verifies the digest before the object appears; to hash everything twice would take time.
        blob = self._registry.unverified_blob(image.reference, layer.digest, layer.size)
        async with aclosing(blob) as chunks:
            async for chunk in chunks:
                yield chunk
                self._progress.transferred(layer.digest, len(chunk))


async def follow(
    publisher: PublisherApi,
    digests: Iterable[Digest],
    *,
    progress: LayerProgress,
    timeout: float,  # noqa: ASYNC109 - how long to wait is the user's to say
) -> None:
    """Wait until layers are published.

    Parameters
    ----------
    timeout
        How long, in seconds.

    Raises
    ------
    PublisherApiError
        A layer is refused, the publisher does not answer, or the time is over.
    """
    waiting = set(digests)

    async def wait(digest: Digest) -> None:
        await publisher.published(digest, report=lambda state: progress.reached(digest, state))
        waiting.discard(digest)

    try:
        async with asyncio.timeout(timeout):
            await all_of(wait(digest) for digest in tuple(waiting))
    except TimeoutError:
        raise PublisherTimeoutError(
            f"not published within {timeout:g} s: {', '.join(sorted(waiting))}; they are in the object store, and the "
            "publisher goes on: call again, or give a larger --timeout"
        ) from None
