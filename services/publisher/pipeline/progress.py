"""What the publisher is doing now, for whoever watches it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from services.common.digest import Digest
from services.common.image_name import ImageName

__all__ = ["UNRECOVERED", "Progress", "Stage", "SweepState", "TransactionProgress"]

UNRECOVERED: Final = "the repository has not been recovered yet"
"""What keeps a publisher from publishing that has not begun to."""


class Stage(StrEnum):
    """What a transaction is about."""

    OPENING = "opening"
    """The repository has been asked for it."""
    ADDING = "adding layers"
    """Layers go into it."""
    PUBLISHING = "publishing"
    """It is becoming a revision."""


@dataclass(slots=True, kw_only=True)
class TransactionProgress:
    """The transaction that is under way."""

    digests: tuple[Digest, ...]
    """Its layers."""
    images: tuple[ImageName, ...] = ()
    """Its images, those that it removes included."""
    size: int
    """Bytes of the layers' files."""
    stage: Stage = Stage.OPENING
    added: int = 0
    """Layers that have been dealt with."""
    since: float = field(default_factory=time.time)
    """When it was begun, in seconds since the epoch."""

    def join(self, digests: Sequence[Digest], images: Sequence[ImageName], size: int) -> None:
        """Take note of layers and images that join it, with files of so many bytes."""
        self.digests += tuple(digests)
        self.images += tuple(images)
        self.size += size


@dataclass(slots=True)
class SweepState:
    """What the sweeps of this process have come to."""

    begun: int = 0
    """Number of the last sweep that was begun, counted from 1."""
    ended: int = 0
    """Number of the last one that has ended."""
    ended_at: float | None = None
    """When that was, in seconds since the epoch."""
    found: int = 0
    """Layers that it found to work on."""
    error: str | None = None
    """Why it failed."""

    def begin(self) -> None:
        """Take note that one is begun."""
        self.begun += 1

    def end(self, *, found: int = 0, error: str | None = None) -> None:
        """Take note of how it ended."""
        self.ended, self.ended_at, self.found, self.error = self.begun, time.time(), found, error


@dataclass(slots=True)
class Progress:
    """The publisher's work at this moment, kept by those who do it."""

    obstacle: str | None = UNRECOVERED
    """Why nothing is being published at the moment; nothing if it is."""
    transaction: TransactionProgress | None = None
    """The transaction that is under way."""
    sweep: SweepState = field(default_factory=SweepState)
