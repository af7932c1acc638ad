"""What a snapshot is."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from services.common.descriptor import LayerUrl

__all__ = ["Kind", "Snapshot", "Usage"]


class Kind(IntEnum):
    """State of a snapshot, by containerd's numbers."""

    VIEW = 1
    """Mounted read-only."""
    ACTIVE = 2
    """Mounted for writing."""
    COMMITTED = 3
    """Finished: others may stand on it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot, as it was when it was looked up."""

    number: int
    """Its own for ever, and the name of its directory; a key can be as long as a path, and can be used again."""
    name: str
    """Key, or name of a committed one."""
    parent_number: int | None
    parent: str
    """Name of the parent, empty if there is none."""
    kind: Kind
    created: int
    """Nanoseconds since 1970."""
    updated: int
    """Nanoseconds since 1970."""
    labels: Mapping[str, str]
    remote: LayerUrl | None
    """The published layer that it is, with no files of its own here; None for all others."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a snapshot's own files take."""

    size: int
    """Bytes on the disk."""
    inodes: int
