"""What a flat image has besides the entries of its layers, and what it has not."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.common.layout import CATALOG_MARKER

__all__ = ["DROPPED_NAMES", "GeneratedEntry", "GeneratedKind"]

DROPPED_NAMES: Final = frozenset((CATALOG_MARKER.encode(), b".cvmfsdirtab", b".cvmfsautocatalog"))
"""Names that are left out wherever a layer has them, with everything below: CVMFS's servers would act on them."""


class GeneratedKind(StrEnum):
    """Types of generated entries."""

    DIRECTORY = "directory"
    FILE = "file"
    SYMLINK = "symlink"


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedEntry:
    """An entry that is put into the merged tree of the layers; it belongs to root.

    A directory that is there already stays as it is, with everything in it. Of anything else, what is there is
    replaced. An entry whose parent is no directory is left out and reported: nothing follows the links of an image.
    """

    path: bytes
    """Relative to the root of the image; its parent comes before it, unless that is the root."""
    kind: GeneratedKind
    mode: int = 0o777
    """Permission bits."""
    data: bytes = b""
    """Content of a file, or target of a link."""
    mtime: int = 0
    """Seconds since the epoch."""
    only_if_missing: bool = False
    """Whether whatever is there of this name stays, even a link that leads nowhere."""
