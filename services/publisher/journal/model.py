"""The states of a layer on its way from an announcement to a revision of the repository."""

from dataclasses import dataclass
from enum import StrEnum

from services.common.digest import Digest

__all__ = ["LayerRecord", "LayerState", "OwnTransaction"]


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
    announced_at: float
    updated_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTransaction:
    """A transaction that the publisher opened, or was about to open, and has not seen the end of."""

    token: str
    """Names the transaction; the mark of it in the repository holds the same."""
    process: str | None
    """The program that works on the transaction, as `<pid>/<start time>`, while it runs."""
