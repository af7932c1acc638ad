"""Which wishes a hint is about."""

import fnmatch
from collections import defaultdict
from collections.abc import Iterable
from typing import Final, Protocol

from services.converter.model import ChosenTags, ExactDigest, Hint, TagSelection, Wish

__all__ = ["Matcher", "WishIndex", "registry_key"]

_HUB: Final = "docker.io"
_HUB_NAMES: Final = frozenset({_HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})
"""What people write for Docker Hub."""


class Matcher(Protocol):
    """Knows what is wished."""

    def matches(self, hint: Hint) -> bool:
        """Whether a wish is about what a hint is about."""
        ...


class WishIndex:
    """Wishes by their repositories.

    Parameters
    ----------
    wishes
        All that are wished now.
    """

    def __init__(self, wishes: Iterable[Wish]) -> None:
        self._wishes: defaultdict[tuple[str, str], list[Wish]] = defaultdict(list)
        for wish in wishes:
            self._wishes[registry_key(wish.registry, wish.repository)].append(wish)

    def matches(self, hint: Hint) -> bool:
        """Whether a wish is about what a hint is about."""
        return bool(self.matching(hint))

    def matching(self, hint: Hint) -> tuple[Wish, ...]:
        """Return the wishes that a hint is about.

        Of wishes that select tags by age or number, all whose globs match: what the tag's coming or going does to the
        selection is for whoever expands it.
        """
        wishes = self._wishes.get(registry_key(hint.registry, hint.repository), ())
        return tuple(wish for wish in wishes if hint.tag is None or _selects(wish.tags, hint.tag))


def registry_key(registry: str, repository: str) -> tuple[str, str]:
    """Return what two names of a repository have in common if they are the same one."""
    host = registry.lower()
    if host in _HUB_NAMES:
        return _HUB, repository if "/" in repository else f"library/{repository}"
    return host, repository


def _selects(selection: TagSelection, tag: str) -> bool:
    if isinstance(selection, ExactDigest):
        return False  # nothing moves what is named by its digest
    if isinstance(selection, ChosenTags):
        included = any(fnmatch.fnmatchcase(tag, glob) for glob in selection.include)
        return included and not any(fnmatch.fnmatchcase(tag, glob) for glob in selection.exclude)
    return selection.tag == tag
