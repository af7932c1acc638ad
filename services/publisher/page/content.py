"""What the pages show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.publisher.journal.image_model import ImageRecord, ImageSelection, VersionRecord
from services.publisher.journal.model import LayerRecord, Selection
from services.publisher.pipeline.images.outputs import PublishedOutputs
from services.publisher.status.model import PublisherStatus

__all__ = ["ImageContent", "ImageList", "ImagesContent", "LayerList", "LayersContent"]

_DIGEST_LENGTH: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerList:
    """A page of the list of layers."""

    selection: Selection
    records: Sequence[LayerRecord]
    newest: str | None
    """Address of the first page, unless this is it."""
    older: str | None
    """Address of the following page, if there may be one."""
    problem: str | None = None
    """What is wrong with the query, so that nothing was looked for."""

    @property
    def is_single(self) -> bool:
        """Whether it is about one layer, which is shown in full."""
        return len(self.selection.prefix) == _DIGEST_LENGTH


@dataclass(frozen=True, slots=True, kw_only=True)
class LayersContent:
    """Everything that the page of layers shows."""

    status: PublisherStatus
    latest: LayerRecord | None
    """The layer that was published last."""
    failures: Sequence[LayerRecord]
    """The last failures."""
    layers: LayerList


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageList:
    """A page of the list of images."""

    selection: ImageSelection
    records: Sequence[ImageRecord]
    first: str | None
    """Address of the first page, unless this is it."""
    following: str | None
    """Address of the following page, if there may be one."""
    problem: str | None = None
    """What is wrong with the query, so that nothing was looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesContent:
    """Everything that the page of images shows."""

    status: PublisherStatus
    latest: LayerRecord | None
    """The layer that was published last."""
    failures: Sequence[ImageRecord]
    """The last images that have failed."""
    images: ImageList


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageContent:
    """Everything that the page of one image shows."""

    status: PublisherStatus
    record: ImageRecord | None = None
    """The image; None if there is none, for the reason that is the problem."""
    layers: Sequence[Mapping[str, object]] = ()
    """Its layers: `digest`, `size` and `state`."""
    versions: Sequence[VersionRecord] = ()
    """What its name has named, the last one first."""
    outputs: PublishedOutputs = field(default_factory=PublishedOutputs)
    """Those of the version that is published."""
    problem: str | None = None
