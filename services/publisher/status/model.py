"""The publisher at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.common.repository_name import RepositoryName
from services.publisher.consistency.model import CheckOutcome
from services.publisher.journal.image_model import ImageState, ImageSummary
from services.publisher.journal.model import LayerState, Pause, Summary
from services.publisher.pipeline.progress import SweepState, TransactionProgress
from services.publisher.status.publishers import Publishers

__all__ = ["DiskSpace", "PublisherStatus"]

_LOW_SHARE: Final = 0.05
_LOW_BYTES: Final = 1 << 30
_RENEWAL: Final = 7 * 86400
"""How long before its end a whitelist should be renewed, in seconds; it is valid for thirty days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSpace:
    """The file system that a directory is on."""

    free: int
    """Bytes that can still be written."""
    total: int
    """Its size, in bytes."""

    @property
    def is_low(self) -> bool:
        """Whether somebody should look: less than a twentieth, and less than a gibibyte, is free."""
        return self.free < _LOW_BYTES and self.free < self.total * _LOW_SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherStatus:
    """The publisher at one moment. Times are seconds since the epoch."""

    now: float
    repository: RepositoryName
    publishers: Publishers
    """Who works on it."""
    leads: bool
    """Whether this publisher leads. What it says of transaction, sweep, spool and disks is about itself alone."""
    layers: Summary
    images: ImageSummary
    pause: Pause | None
    obstacle: str | None
    """Why nothing is being published though it should be; None if nothing keeps it from that."""
    transaction: TransactionProgress | None
    sweep: SweepState
    check: CheckOutcome | None
    """What the last check has come to; None if there was none since the start."""
    trusted_until: float | None
    """When clients stop to trust the repository; None where that is not known, or never."""
    spool_used: int
    """Bytes of the archives in the spool."""
    spool_limit: int
    """Most bytes that they may have together."""
    disks: Mapping[str, DiskSpace | None]
    """Space of the `spool` and of the journal's `state`, and of what `cvmfs_server` writes to, its own `cvmfs_spool`
    and the repository's `storage`; None for a directory that is not there."""

    @property
    def oldest_age(self) -> float:
        """Seconds since the first layer was announced that is neither published nor refused; 0 if there is none."""
        return 0 if self.layers.oldest is None else max(0, self.now - self.layers.oldest)

    @property
    def oldest_image_age(self) -> float:
        """Seconds since the first image was asked for that is neither as asked for nor refused; 0 if there is none."""
        return 0 if self.images.oldest is None else max(0, self.now - self.images.oldest)

    @property
    def is_trust_ending(self) -> bool:
        """Whether somebody should renew what clients trust the repository by."""
        return self.trusted_until is not None and self.trusted_until < self.now + _RENEWAL

    @property
    def transaction_age(self) -> float:
        """Seconds since the transaction under way was begun; 0 if there is none."""
        return 0 if self.transaction is None else max(0, self.now - self.transaction.since)

    @property
    def publishes_elsewhere(self) -> bool:
        """Whether another publisher has a transaction under way, and this one has none."""
        publishing = self.layers.counts[LayerState.PUBLISHING] + self.images.counts[ImageState.PUBLISHING]
        return self.publishers.are_several and self.transaction is None and publishing > 0

    @property
    def waiting_for(self) -> str | None:
        """What keeps layers from being published, a pause included."""
        if self.pause is None:
            return self.obstacle
        return "publishing is paused" + (f": {self.pause.reason}" if self.pause.reason else "")
