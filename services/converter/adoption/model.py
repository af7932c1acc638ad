"""What is found in a repository that is to be taken over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.image_outputs import ImageOutputs

__all__ = ["FoundImage", "FoundLayer", "FoundStore", "Inventory", "LayerContents", "Verdict"]

_FEW: Final = 1


class Verdict(StrEnum):
    """What is to be done about an image."""

    OURS = "kept"
    """This suite has published it: nothing."""
    ANEW = "made anew"
    """DUCC has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerContents:
    """What the files of a layer show."""

    entries: int
    """How many there are, its root included."""
    whiteouts: int
    """Files `.wh.NAME`, which delete nothing where they lie."""
    opaque: int
    """Files `.wh..wh..opq`, which hide nothing either."""
    owners: frozenset[tuple[int, int]]
    """Users and groups that they belong to; of more than two some two."""

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with it."""
        found = []
        if self.whiteouts:
            found.append(f"files .wh.* ({self.whiteouts}): what they delete comes back, and they are seen")
        if self.opaque:
            found.append(f"files .wh..wh..opq ({self.opaque}): what they hide comes back, and they are seen")
        if self.entries > _FEW and len(self.owners) == 1:
            ((user, group),) = self.owners
            if (user, group) != (0, 0):
                found.append(f"all {self.entries} entries belong to {user}:{group}, whoever their owners are")
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLayer:
    """A layer that an image names."""

    digest: Digest
    faults: tuple[str, ...]
    """What is wrong with it, for people."""

    @property
    def is_right(self) -> bool:
        """Whether it is kept as it is, and not fetched again."""
        return not self.faults


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImage:
    """An image that a repository has documents of."""

    name: ImageName
    verdict: Verdict
    platforms: tuple[str, ...]
    """`OS/ARCHITECTURE[/VARIANT]`, that of clients which say nothing first; none where the repository does not tell."""
    outputs: ImageOutputs
    """In which further ways the repository shows it."""
    layers: tuple[Digest, ...]
    """Of all platforms, each once."""
    flats: tuple[Digest, ...]
    """Configurations of the flat images that its names lead to."""
    faults: tuple[str, ...]
    """What is wrong with it, besides its layers, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundStore:
    """A store of podman's."""

    path: str
    images: frozenset[Digest]
    """Those that its list has, by their configurations."""
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All that concerns images in a repository."""

    root: str
    images: Sequence[FoundImage]
    """In the order of their names."""
    layers: Mapping[Digest, FoundLayer]
    """Those that images name."""
    stores: Sequence[FoundStore]
    strays: Sequence[str]
    """What belongs to no image, or to none that can be named, for people."""
