"""The states of a layer on its way from an announcement to a revision of the repository."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from services.common.digest import Digest

__all__ = ["WIDEST", "LayerRecord", "LayerSource", "LayerState", "Moment", "Pause", "Selection", "Summary"]

WIDEST: Final = 1024
"""The number of units that bounds what an earlier failure lets be part of a batch."""


class LayerState(StrEnum):
    """Where a layer is.

    ::

        announced ─► fetching ─► verified ─► publishing ─► published
            ▲            └───────────┴────────────┴──────► failed
            └──────────── when due, or asked for ────────────┘
    """

    ANNOUNCED = "announced"
    """Known, nothing done yet."""
    FETCHING = "fetching"
    """Being downloaded and verified."""
    VERIFIED = "verified"
    """In the spool, its size, digest, diff ID and content found good."""
    PUBLISHING = "publishing"
    """Part of the transaction that is under way."""
    PUBLISHED = "published"
    """In the repository, visible to its readers."""
    FAILED = "failed"
    """Not published, for a reason; tried again when due, or refused for good."""


class LayerSource(StrEnum):
    """Where a layer came from."""

    BUCKET = "bucket"
    """An object of the bucket, by a commit or a conversion that went there."""
    REGISTRY = "registry"
    """A blob of an image's registry. Only such layers may be collected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRecord:
    """One layer in the journal. Times are seconds since the epoch."""

    digest: Digest
    state: LayerState
    attempts: int
    """Failed attempts so far for which the layer itself may be the reason."""
    share: int | None
    """Largest batch that the layer may be part of: a batch that fails is tried again in halves."""
    reason: str | None
    """Why it failed last."""
    retryable: bool
    """Of a failed layer: whether it is tried again by itself."""
    due: float
    """When it may be tried next."""
    revision: int | None
    """Of a published layer: the revision of the repository that brought it, where that is known."""
    archive_size: int | None
    """Bytes of the archive; known once its object has been found."""
    tree_size: int | None
    """Bytes of the layer's files; known once the archive has been read."""
    notes: tuple[str, ...] = ()
    """Of a published layer: what of it the repository could not keep, for people; the layer's sidecar has all of it."""
    source: LayerSource = LayerSource.BUCKET
    named_last: float | None = None
    """Of a layer of a registry: until when a version of an image named it or is kept; None while a visible one does."""
    announced_at: float
    updated_at: float
    claimed_by: str | None = None
    """The publisher that works on it, see `PublisherRecord.id`."""

    @property
    def is_refused(self) -> bool:
        """Whether it has failed and is not tried again by itself."""
        return self.state is LayerState.FAILED and not self.retryable

    @property
    def moment(self) -> "Moment":
        """Its place among the layers by the time of their last change."""
        return Moment(self.updated_at, self.digest)


class Moment(NamedTuple):
    """A place in the list of layers by the time of their last change."""

    time: float
    digest: str

    def __str__(self) -> str:
        # The shortest text that reads back as the same number.
        return f"{self.time!r},{self.digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which layers are meant; what is empty selects all."""

    states: tuple[LayerState, ...] = ()
    refused: bool | None = None
    """Of failed layers: those that are refused for good, or those that are tried again."""
    prefix: str = ""
    """Start of the digest."""
    reason: str = ""
    """A text that is part of the reason, whatever its case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What the journal says of all layers together."""

    counts: Mapping[LayerState, int]
    refused: int
    """Failed layers that are not tried again by themselves."""
    elsewhere: int = 0
    """Those of them that are for other repositories."""
    oldest: float | None
    """When the first of those was announced that are neither published nor refused; None if there are none."""

    @property
    def total(self) -> int:
        """Number of layers."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Somebody has asked that nothing new be published."""

    since: float
    """Seconds since the epoch."""
    reason: str
    """What for; may be empty."""
