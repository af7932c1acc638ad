"""The states of an image on its way from an ask to a revision of the repository, and the versions that it has had."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.image_outputs import NO_OUTPUTS, ImageOutputs

__all__ = [
    "UNDER_WAY",
    "ImageRecord",
    "ImageSelection",
    "ImageState",
    "ImageSummary",
    "ImageVersion",
    "ImageWish",
    "PlatformImage",
    "VersionLayer",
    "VersionRecord",
    "unique",
]


class ImageState(StrEnum):
    """Where an image is.

    ::

        asked ─► resolving ─► fetching ─► ready ─► publishing ─► published
          ▲          └────────────┴─────────┴──────────┴───────► failed
          └──────────────── when due, or asked for ───────────────┘
        removing ─► removed
    """

    ASKED = "asked"
    """Asked for, nothing done yet."""
    RESOLVING = "resolving"
    """Its documents are being read from the registry."""
    FETCHING = "fetching"
    """Its missing layers are waited for, fetched and prepared."""
    READY = "ready"
    """Everything is there; it waits for a transaction."""
    PUBLISHING = "publishing"
    """Part of the transaction that is under way."""
    PUBLISHED = "published"
    """In the repository, visible to its readers."""
    FAILED = "failed"
    """Not published as it was asked for, for a reason; tried again when due, or refused for good. A version that was
    published before stays."""
    REMOVING = "removing"
    """To be removed by the next transaction."""
    REMOVED = "removed"
    """Not in the repository any more."""


UNDER_WAY: Final = (ImageState.RESOLVING, ImageState.FETCHING, ImageState.READY, ImageState.PUBLISHING)
"""States of images that are being worked on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageWish:
    """What somebody asks for."""

    name: ImageName
    reference: str
    """Where it is pulled from."""
    digest: Digest | None
    """Exactly this is wanted, whatever the tag says; None for what the tag names."""
    platforms: tuple[str, ...]
    """What for; the first one's documents are at the image's own name."""
    project: str | None = None
    """Who asks; None for an operator."""
    priority: int = 0
    """Higher ones come first."""
    verified: Mapping[str, Any] | None = None
    """What was verified about the image, for its record."""
    keep: float | None = None
    """For how long the layers of the version that it replaces are kept, in seconds."""
    outputs: ImageOutputs = NO_OUTPUTS
    """In which further ways the repository shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One image in the journal. Times are seconds since the epoch."""

    name: ImageName
    ask: int
    """Number of the ask: what was begun for an earlier one is given up."""
    reference: str
    asked: Digest | None
    """The digest that was asked for; None for what the tag names."""
    digest: Digest | None
    """The digest that it was found to have; None until it has been looked for."""
    published: Digest | None
    """The version that readers see."""
    platforms: tuple[str, ...]
    project: str | None
    priority: int
    verified: Mapping[str, Any] | None
    keep: float | None
    outputs: ImageOutputs
    state: ImageState
    attempts: int
    """Failed attempts so far for which the image itself may be the reason."""
    share: int | None
    """Most units of a batch that it may be part of: a batch that fails is tried again in halves."""
    reason: str | None
    """Why it failed last."""
    retryable: bool
    """Of a failed image: whether it is tried again by itself."""
    due: float
    """When it may be tried next."""
    revision: int | None
    """The revision that brought the published version, where that is known."""
    bytes_known: int | None
    """Bytes of its layers that the repository had already; None until that has been looked for."""
    bytes_missing: int | None
    """Bytes of those that it had not."""
    resolving: float | None
    """Seconds that the step took; None while it has not ended."""
    fetching: float | None
    publishing: float | None
    asked_at: float
    checked_at: float | None
    """When somebody last said that this is what it should be."""
    published_at: float | None
    removed_at: float | None
    updated_at: float
    claimed_by: str | None = None
    """The publisher that works under its name, see `PublisherRecord.id`."""

    @property
    def shown(self) -> Digest | None:
        """The version that it has, or is to have, as far as that is known."""
        return self.digest or self.asked or self.published


@dataclass(frozen=True, slots=True)
class VersionLayer:
    """A layer of an image."""

    digest: Digest
    diff_id: Digest
    size: int
    """Size of the archive, in bytes."""


@dataclass(frozen=True, slots=True)
class PlatformImage:
    """An image for one platform."""

    platform: str
    manifest: Digest
    config: Digest
    layers: tuple[VersionLayer, ...]
    """Base first; one that an image has twice is here twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageVersion:
    """What a name named at one time, whole."""

    name: ImageName
    digest: Digest
    """SHA-256 of what the tag names: the index, or the only image's manifest."""
    reference: str
    platforms: tuple[str, ...]
    """The platforms that were asked for."""
    images: tuple[PlatformImage, ...]
    documents: Mapping[str, bytes]
    """Original bytes, by their paths below the directory of documents."""
    verified: Mapping[str, Any] | None
    outputs: ImageOutputs = NO_OUTPUTS

    @property
    def layers(self) -> tuple[VersionLayer, ...]:
        """The layers of all its platforms, each once."""
        return unique(layer for image in self.images for layer in image.layers)

    @property
    def flats(self) -> frozenset[Digest]:
        """The configurations of the flat images that it has."""
        return frozenset() if self.outputs.flat is None else self.shown

    @property
    def shown(self) -> frozenset[Digest]:
        """The configurations of those of its platforms that its outputs are made of."""
        return frozenset(image.config for image in self.images) if self.outputs else frozenset()


def unique(layers: Iterable[VersionLayer]) -> tuple[VersionLayer, ...]:
    """Return layers in their order, each once."""
    found: dict[Digest, VersionLayer] = {}
    for layer in layers:
        found.setdefault(layer.digest, layer)
    return tuple(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord:
    """One version of a name that has been published. Times are seconds since the epoch."""

    name: ImageName
    digest: Digest
    reference: str
    platforms: tuple[str, ...]
    verified: Mapping[str, Any] | None
    outputs: ImageOutputs
    published_at: float
    replaced_at: float | None
    """When another version took its place."""
    removed_at: float | None
    """When the name was removed while it named this version."""
    keep_until: float | None
    """Of a version that is not visible any more: until when its layers are kept whatever the collection's period is."""
    collected_at: float | None
    """When its documents and the layers that nothing else named were given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSelection:
    """Which images are meant; what is empty selects all."""

    states: tuple[ImageState, ...] = ()
    refused: bool | None = None
    """Whether they have failed and are at fault themselves; None for either."""
    prefix: str = ""
    """Start of the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSummary:
    """What the journal says of all images together."""

    counts: Mapping[ImageState, int]
    refused: int
    """Failed images that are not tried again by themselves."""
    oldest: float | None
    """When the first of those was asked for that are neither as they were asked for nor refused; None if none is."""
