"""Where the layers of an image are."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.common.object_store import ObjectStore
from services.common.publisher_api import PublisherApi
from services.docker2cvmfs.publish import layers_of
from services.registry.images import Image, ImageLayer

__all__ = ["LayerPlace", "Place", "locate"]

_PARALLEL: Final = 16


class Place(StrEnum):
    """Where a layer is."""

    REPOSITORY = "repository"
    BUCKET = "bucket"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlace:
    """A layer, and where it is."""

    layer: ImageLayer
    place: Place
    state: str | None
    """What the publisher says; None if it has not heard of the layer, or nobody asked."""

    @property
    def to_transfer(self) -> int:
        """Bytes that a publication would move."""
        return self.layer.size if self.place is Place.NOWHERE else 0


async def locate(images: Iterable[Image], *, store: ObjectStore, publisher: PublisherApi) -> list[LayerPlace]:
    """Find every layer of the images.

    Raises
    ------
    ObjectStoreError
        The object store failed.
    PublisherApiError
        The publisher failed.
    """
    places = asyncio.Semaphore(_PARALLEL)

    async def one(layer: ImageLayer) -> LayerPlace:
        async with places:
            status = await publisher.layer(layer.digest)
            if status is not None and status.is_published:
                place = Place.REPOSITORY
            else:
                place = Place.NOWHERE if await store.head(layer.digest) is None else Place.BUCKET
            return LayerPlace(layer=layer, place=place, state=None if status is None else status.state)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(layer)) for _, layer in layers_of(images).values()]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
