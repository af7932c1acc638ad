"""Where the layers of an image are."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from services.common.object_store.store import ObjectStore
from services.common.publisher_api import PublisherApi
from services.common.together import all_of
from services.docker2cvmfs.publish import layers_of
from services.registry.images import Image, ImageLayer

__all__ = ["LayerPlace", "Place", "locate", "status_document", "status_table"]

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

    return await all_of(one(layer) for _, layer in layers_of(images).values())


def status_document(repository: str, places: Sequence[LayerPlace]) -> dict[str, Any]:
    """Return what scripts read."""
    return {
        "repository": repository,
        "to_transfer": sum(item.to_transfer for item in places),
        "layers": [
            {"digest": item.layer.digest, "size": item.layer.size, "place": item.place, "publisher": item.state}
            for item in places
        ],
    }


def status_table(repository: str, places: Sequence[LayerPlace]) -> str:
    """Return what people read."""
    names = {Place.REPOSITORY: f"published in {repository}", Place.BUCKET: "in the bucket", Place.NOWHERE: "nowhere"}
    lines = [
        f"{item.layer.digest}  {item.layer.size:>15,}  {names[item.place]}" + (f" ({item.state})" if item.state else "")
        for item in places
    ]
    total = sum(item.to_transfer for item in places)
    return "".join(
        f"{line}\n" for line in (*lines, f"to transfer: {total:,} of {sum(item.layer.size for item in places):,} bytes")
    )
