"""What a store is to know of a layer, besides what its image says."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from services.common.errors import InvalidValueError
from services.common.sidecar import LayerSidecar, decode_path, encode_path

__all__ = ["Deletions", "LayerFacts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletions:
    """What of lower layers a layer hides; paths are relative to the layer's root."""

    whiteouts: tuple[bytes, ...] = ()
    opaque: tuple[bytes, ...] = ()
    """Directories that hide what lower layers have in them."""

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.whiteouts or self.opaque)

    def check(self) -> None:
        """Make sure that one tree can have all of them.

        Raises
        ------
        InvalidValueError
            A path is deleted, and something at or below it as well.
        """
        paths = (*self.whiteouts, *self.opaque)
        deleted = set(self.whiteouts)
        again = next((path for path in paths if any(above in deleted for above in _above(path))), None)
        if again is None and len(set(paths)) < len(paths):
            again = next(path for path, count in Counter(paths).items() if count > 1)
        if again is not None:
            raise InvalidValueError(f"it deletes a path and something at or below it: {encode_path(again[:200])}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """What a layer's sidecar says."""

    size: int
    """Of the tar stream, in bytes."""
    masked: Deletions
    """Deletions that its tree does not show to everybody who is to see them."""
    tar_split: bool
    """Whether there is what podman makes its archive again with."""

    @classmethod
    def of(cls, sidecar: LayerSidecar) -> Self:
        """Read them.

        Whiteouts in the tree are seen by all; opaque directories there are not by those who have no privileges, to whom
        the attribute `trusted.overlay.opaque` does not exist. overlayfs knows no opaque root: the roots of all layers
        are merged.
        """
        whiteouts = sidecar.whiteouts if sidecar.deletions == "listed" else ()
        opaque = filter(None, sidecar.opaque)
        return cls(
            size=sidecar.uncompressed_size,
            masked=Deletions(whiteouts=tuple(map(decode_path, whiteouts)), opaque=tuple(map(decode_path, opaque))),
            tar_split=sidecar.tar_split,
        )


def _above(path: bytes) -> Iterator[bytes]:
    """Give the directories above a path."""
    while path := path.rpartition(b"/")[0]:
        yield path
