"""The images that wish lists come to, and why; the same functions decide as in rounds."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.repository_name import RepositoryName
from services.converter.model import ChosenTags, ExactDigest, SignaturePolicy, Wish
from services.converter.wishlist.selection import (
    Wanted,
    candidates,
    choose,
    exact_name,
    image_name,
    needs_creation,
    settle,
)
from services.registry.errors import RegistryError

__all__ = ["Open", "Plan", "TagSource", "make_plan", "selection_text"]


class TagSource(Protocol):
    """What registries are asked."""

    async def tags(self, wish: Wish) -> Sequence[str]:
        """Return all tags of a wish's repository.

        Raises
        ------
        RegistryError
            The registry failed or refused.
        """

    async def created(self, wish: Wish, tag: str) -> datetime | None:
        """Return when an image was made, None where it does not tell; raises as `tags`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """A wish whose images are not known."""

    wish: Wish
    reason: str
    """Why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What wish lists come to."""

    wanted: tuple[Wanted, ...]
    """In the order in which they would be looked at."""
    reasons: dict[tuple[RepositoryName, ImageName], str]
    """Why each of them is wanted."""
    open: tuple[Open, ...]
    policies: tuple[SignaturePolicy, ...]
    """Those of all lists."""


async def make_plan(wishes: Sequence[Wish], policies: Sequence[SignaturePolicy], tags: TagSource | None) -> Plan:
    """Find the images.

    Parameters
    ----------
    wishes
        Those of all lists, in their order.
    policies
        Those of all lists.
    tags
        Tells tags; None: wishes that choose among tags stay open.
    """
    found: list[tuple[Wish, ImageName, Digest | None]] = []
    still_open = []
    for wish in wishes:
        try:
            found += [(wish, name, digest) async for name, digest in _images(wish, tags)]
        except _OpenError as reason:
            still_open.append(Open(wish=wish, reason=str(reason)))
        except RegistryError as error:
            still_open.append(Open(wish=wish, reason=f"the registry does not tell: {error}"))
    wanted = settle(found)
    reasons = {key: _reason(each) for key, each in wanted.items()}
    return Plan(wanted=tuple(wanted.values()), reasons=reasons, open=tuple(still_open), policies=tuple(policies))


class _OpenError(Exception):
    """The registry would have to be asked."""


async def _images(wish: Wish, source: TagSource | None) -> AsyncIterator[tuple[ImageName, Digest | None]]:
    named = exact_name(wish)
    if named is not None:
        yield named
        return
    if source is None:
        raise _OpenError("the registry is not asked for its tags")
    selection = wish.tags
    if not isinstance(selection, ChosenTags):
        raise TypeError(f"no such selection of tags: {selection!r}")
    passed = candidates(selection, await source.tags(wish))
    created = {tag: await source.created(wish, tag) for tag in passed} if needs_creation(selection) else {}
    for tag in choose(selection, passed, created=created, now=datetime.now(UTC)):
        yield image_name(wish, tag), None


def _reason(wanted: Wanted) -> str:
    text = selection_text(wanted.wish)
    if wanted.others:
        places = ", ".join(str(other.origin) for other in wanted.others)
        text += f"; before the wishes at {places}"
    return text


def selection_text(wish: Wish) -> str:
    """Say in words which images a wish chooses."""
    selection = wish.tags
    if isinstance(selection, ExactDigest):
        return "the digest is written out"
    if not isinstance(selection, ChosenTags):
        return "the tag is written out"
    parts = [f"tags {' '.join(selection.include)}"]
    if selection.exclude:
        parts.append(f"without {' '.join(selection.exclude)}")
    if selection.versions is not None:
        parts.append(f"versions {selection.versions}")
    if selection.max_age is not None:
        parts.append(f"at most {selection.max_age:g} seconds old")
    if selection.newest is not None:
        parts.append(f"the newest {selection.newest} by {selection.newest_by}")
    return ", ".join(parts)
