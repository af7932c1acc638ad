"""What the state says. Times that end with `_at` are seconds since the epoch; all others are `SteadyClock`'s."""

from dataclasses import dataclass
from typing import NamedTuple

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.converter.model import Retention
from services.registry.platform import Platform

__all__ = ["Copy", "KnownImage", "Lateness", "Polled", "Removable", "StateSummary", "ThinRecord", "Want", "WishRecord"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WishRecord:
    """How the polls of a wish went."""

    fingerprint: str
    """What the wish said when it was polled last."""
    due: float
    """When it is polled next."""
    failures: int
    """Polls that failed since one succeeded."""
    reason: str | None
    """Why the last one failed."""
    polled_at: float | None
    """When one succeeded last."""


class Polled(NamedTuple):
    """A poll that came to its end."""

    fingerprint: str
    due: float
    """When the next one is."""
    polled_at: float
    reason: str | None
    """What could not be learned."""


class KnownImage(NamedTuple):
    """What is known of an image before its registry is asked; there are tens of thousands."""

    digest: str
    """The digest that its name had last."""
    missing: bool
    """Whether the registry said last that there is none."""
    dropped: bool
    """Whether a copy of it counts as dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """A CVMFS repository that should have an image, by the wish that decides about it."""

    repository: RepositoryName
    wish: str
    """Key of the wish."""
    source: str
    """The wish list that it is from."""
    retention: Retention


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """An image in one CVMFS repository."""

    name: ImageName
    repository: RepositoryName
    wish: str
    """Key of the wish that it is there for."""
    wanted: Digest
    wanted_at: float
    attempts: int
    published: Digest | None
    """What was published last, for all that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removable:
    """A published image that is not wished any more, or that its registry has no more."""

    name: ImageName
    repository: RepositoryName
    wish: str
    dropped: float | None
    """Since when it is not wished."""
    dropped_why: str | None
    dropped_after: float | None
    """Seconds after which it goes then; None is never."""
    missing: int
    """How often the registry said definitely that there is none."""
    missing_since: float | None
    missing_last: float | None
    emptied: bool
    """Whether it said so of everything in the repository."""
    gone_after: float | None
    """Seconds after which it goes then; None is never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinRecord:
    """A thin image that is to be pushed."""

    reference: str
    name: ImageName
    repository: RepositoryName
    layout: LayerLayout
    platforms: tuple[Platform, ...]
    digest: Digest
    """Of the image that it is made from."""
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lateness:
    """An image that is not as it should be."""

    name: ImageName
    repository: RepositoryName
    state: str
    wanted_at: float
    attempts: int
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSummary:
    """Everything together."""

    wishes: int
    failing_wishes: int
    images: int
    copies: dict[str, int]
    """Number of copies in each state."""
    missing: int
    """Images that their registries say are not there."""
    dropped: int
    """Copies that nobody wishes any more."""
    thin_waiting: int
    """Thin images that are not pushed yet."""
    thin_failing: int
    """Those of them that failed."""
    oldest_wanted_at: float | None
    """Since when the oldest copy is not what it should be."""
    oldest_polled_at: float | None
    """When the wish was polled that has waited longest; None if there is none, or one that never was."""
