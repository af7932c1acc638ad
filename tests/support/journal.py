"""Layers and images in the publisher's journal."""

from typing import Any

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.publisher.journal.image_model import ImageRecord, ImageState, ImageVersion, PlatformImage, VersionLayer
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerRecord, LayerState
from services.publisher.journal.publishers import PublisherRecord

__all__ = [
    "claim",
    "image_record",
    "image_version",
    "layer_record",
    "numbered",
    "publisher_record",
    "recorded",
]


def numbered(number: int) -> Digest:
    """Return a digest by its number."""
    return Digest(f"{number:064x}")


def layer_record(digest: Digest, state: LayerState, **known: Any) -> LayerRecord:  # noqa: ANN401 - the fields of a record
    """Make the record of a layer of which nothing else is known."""
    nothing: dict[str, Any] = {
        "attempts": 0,
        "share": None,
        "reason": None,
        "retryable": False,
        "due": 0,
        "revision": None,
        "archive_size": None,
        "tree_size": None,
        "announced_at": 0,
        "updated_at": 0,
    }
    return LayerRecord(digest=digest, state=state, **(nothing | known))


def image_record(name: str, **known: Any) -> ImageRecord:  # noqa: ANN401 - the fields of a record
    """Make the record of an image of which nothing else is known."""
    nothing: dict[str, Any] = dict.fromkeys(ImageRecord.__dataclass_fields__)
    nothing |= {
        "ask": 1,
        "reference": name,
        "platforms": ("linux/amd64",),
        "priority": 0,
        "state": ImageState.RESOLVING,
        "attempts": 0,
        "retryable": False,
        "due": 0,
        "asked_at": 0,
        "updated_at": 0,
    }
    return ImageRecord(**{**nothing, "name": ImageName(name), **known})


def image_version(name: str, *layers: int, number: int = 0) -> ImageVersion:
    """Make a version of an image, by its number and those of its layers."""
    described = tuple(VersionLayer(numbered(layer), numbered(layer + 1000), 10) for layer in layers)
    return ImageVersion(
        name=ImageName(name),
        digest=numbered(number),
        reference=name,
        platforms=("linux/amd64",),
        images=(PlatformImage("linux/amd64", numbered(number), numbered(number + 1), described),),
        documents={f"{ImageName(name).path}/manifest.json": b"{}", f"{ImageName(name).path}/config.json": b"\xff"},
        verified=None,
    )


async def claim(journal: Journal, *digests: Digest) -> None:
    """Claim some layers of those that are due, and no others."""
    claimed = set[Digest]()
    while record := await journal.claim():
        claimed.add(record.digest)
    assert claimed.issuperset(digests)
    await journal.give_back(claimed.difference(digests))


def publisher_record(id_: str, **known: Any) -> PublisherRecord:  # noqa: ANN401 - the fields of a record
    """Make the record of a publisher that follows and works on nothing."""
    nothing: dict[str, Any] = {
        "name": "stratum0",
        "started_at": 0,
        "seen_at": 0,
        "leads": False,
        "gone": False,
        "ended": False,
        "layers": 0,
        "images": 0,
    }
    return PublisherRecord(id=id_, **(nothing | known))


async def recorded(journal: Journal, digest: Digest) -> LayerRecord:
    """Return the record of a layer that the journal knows."""
    record = await journal.get(digest)
    assert record is not None
    return record
