"""What the publisher answers, checked. What later publishers may add is ignored."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from services.common.digest import DigestField
from services.common.times import Time

__all__ = ["CheckSummary", "Disagreement", "Layer", "LayerPage", "PublisherEntry", "Status"]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Layer(_Answer):
    """What the publisher says of a layer."""

    digest: DigestField
    state: Annotated[str, Field(max_length=40)]
    """`announced`, `fetching`, `verified`, `publishing`, `published` or `failed`."""
    publisher: str | None = None
    """Name of the publisher that works on it; None if none does."""
    reason: str | None = None
    """Why it failed last."""
    retryable: bool | None = None
    """Of a failed layer: whether it is tried again by itself."""
    next_attempt: Time | None = None
    """When that is."""
    attempts: int = 0
    """Failed attempts so far."""
    revision: int | None = None
    """Of a published layer: the revision that brought it, where that is known."""
    archive_size: int | None = None
    """Bytes of the archive."""
    tree_size: int | None = None
    """Bytes of the layer's files."""
    notes: tuple[str, ...] = ()
    """Of a published layer: what of it the repository could not keep."""
    announced_at: Time
    updated_at: Time

    @property
    def is_published(self) -> bool:
        """Whether readers of the repository see the layer."""
        return self.state == "published"

    @property
    def is_refused(self) -> bool:
        """Whether it failed for good."""
        return self.state == "failed" and not self.retryable


class LayerPage(_Answer):
    """Some layers."""

    layers: tuple[Layer, ...]
    next: str | None = None
    """The request for those that follow, if there may be any."""


class Pause(_Answer):
    """Publishing is paused."""

    since: Time
    reason: str


class Transaction(_Answer):
    """The transaction that is under way."""

    since: Time
    stage: str
    layers: tuple[DigestField, ...]
    added: int
    bytes: int
    """Bytes of the files of its layers."""


class Sweep(_Answer):
    """What the sweeps of the bucket have come to."""

    begun: int
    """Number of the last one that was begun."""
    ended: int
    """Number of the last one that has ended."""
    ended_at: Time | None
    found: int
    """Layers that the last one found to work on."""
    error: str | None
    """Why it failed."""


class LastCheck(_Answer):
    """What the last check has come to."""

    ended_at: Time
    layers: int
    images: int
    disagreements: int
    """Those that something has to be done about."""
    error: str | None
    """Why it could not be finished."""


class Spool(_Answer):
    """Archives on the publisher's disk, in bytes."""

    used: int
    limit: int


class Disk(_Answer):
    """A file system, in bytes."""

    free: int
    total: int


class PublisherEntry(_Answer):
    """One of the publishers that share a journal."""

    id: str
    """Another one at every start."""
    name: str
    standing: Annotated[str, Field(max_length=40)]
    """`leading`, `following`, `ended`, or `gone` without that."""
    started_at: Time
    seen_at: Time
    """When it was heard of last."""
    layers: int
    """Layers that it works on."""
    images: int
    """Images that it works on."""


class Status(_Answer):
    """How a publisher is."""

    repository: str
    paused: Pause | None
    waiting_for: str | None
    """What keeps layers from being published."""
    leads: bool = True
    """Whether the one that answers leads; transaction, sweep, check, spool and disks are its own."""
    publishers: tuple[PublisherEntry, ...] = ()
    """All that share the journal, those included that have ended or gone less than a day ago."""
    layers: dict[str, int]
    """Number of layers in each state."""
    refused: int
    """Failed layers that are not tried again by themselves."""
    oldest_unpublished_seconds: float
    images: dict[str, int] = Field(default_factory=dict)
    """Number of images in each state; none of a publisher that publishes layers only."""
    refused_images: int = 0
    """Failed images that are not tried again by themselves."""
    oldest_unpublished_image_seconds: float = 0
    transaction: Transaction | None
    sweep: Sweep
    check: LastCheck | None = None
    """None if there was none since the start."""
    trusted_until: Time | None = None
    """When clients stop to trust the repository; None where that is not known, or never."""
    spool: Spool
    disks: dict[str, Disk | None]


class Disagreement(_Answer):
    """A layer or an image about which repository, journal and bucket disagree."""

    digest: DigestField
    image: str | None = None
    """Name of the image whose digest it is; None for a layer."""
    kind: str
    meaning: str
    remedy: str
    """What to do."""
    harmless: bool
    """Whether images run as they should all the same."""


class CheckSummary(_Answer):
    """The end of a check."""

    layers: int
    """Layers that were compared."""
    found: dict[str, int]
    """Number of disagreements of each kind."""
