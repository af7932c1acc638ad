"""Wishes that name one image and say different things about it, as far as that shows without asking a registry."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from services.common.image_name import ImageName
from services.converter.model import ChosenTags, Wish
from services.converter.wishlist.selection import candidates, exact_name

__all__ = ["Conflict", "conflicts"]

_PATTERNS: Final = 100
"""Most wishes with patterns, of one repository, that its exact wishes are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """An image that several wishes name."""

    name: ImageName
    decides: Wish
    """The one that counts: the highest priority, then the first."""
    others: tuple[Wish, ...]
    """Those that say something else."""


def conflicts(wishes: Sequence[Wish]) -> Iterator[Conflict]:
    """Find images that are named exactly, and that other wishes for the same CVMFS repository treat differently.

    Parameters
    ----------
    wishes
        Those of all lists, in their order.
    """
    exact: dict[ImageName, list[Wish]] = defaultdict(list)
    patterns: dict[tuple[str, str], list[Wish]] = defaultdict(list)
    for wish in wishes:
        named = exact_name(wish)
        if named is not None:
            exact[named[0]].append(wish)
        elif len(patterns[wish.registry, wish.repository]) < _PATTERNS:
            patterns[wish.registry, wish.repository].append(wish)
    places = {id(wish): place for place, wish in enumerate(wishes)}
    for name, naming in exact.items():
        matching = [wish for wish in patterns.get((name.registry, name.repository), ()) if _matches(wish, name)]
        ranked = sorted([*naming, *matching], key=lambda wish: (-wish.priority, places[id(wish)]))
        others = tuple(wish for wish in ranked[1:] if _differs(wish, ranked[0]))
        if others:
            yield Conflict(name=name, decides=ranked[0], others=others)


def _matches(wish: Wish, name: ImageName) -> bool:
    return isinstance(wish.tags, ChosenTags) and name.tag is not None and bool(candidates(wish.tags, (name.tag,)))


def _differs(wish: Wish, decides: Wish) -> bool:
    if not set(wish.repositories) & set(decides.repositories):
        return False
    return _what(wish) != _what(decides)


def _what(wish: Wish) -> tuple[object, ...]:
    """Return what is done with a wish's images. How soon is no conflict, nor are policies, all of which apply."""
    digest = None if (named := exact_name(wish)) is None else named[1]
    return (digest, wish.platforms, wish.thin, wish.outputs, wish.retention, wish.may_fail)
