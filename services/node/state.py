"""How a node is at one moment."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.common.repository_name import RepositoryName

__all__ = ["NodeState", "RepositoryState"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryState:
    """A repository that thin images may use."""

    name: RepositoryName
    users: int
    """Containers, images under way and look-ups."""
    mounted: bool
    """Whether the mount table has it; a client that died may have left it there."""
    hung: int
    """Look-ups that have not been answered in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """A node at one moment."""

    repositories: Sequence[RepositoryState]
    """All that are allowed, by name."""
    copies: int
    """Committed layers that no repository shows yet."""
    copy_bytes: int
    """What the copies of them take, extractions by the sizes of their files."""
    oldest_copy_age: float
    """Seconds since the first of them was committed; 0 if there is none."""
