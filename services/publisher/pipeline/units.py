"""What a batch consists of: layers that stand alone, images with those of their layers that are missing, removals.

A unit is published whole or not at all.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.publisher.journal.image_model import ImageRecord, ImageVersion
from services.publisher.journal.model import LayerRecord
from services.repository.interface import PreparedLayer

__all__ = ["ReadyImage", "ReadyLayer", "ReadyRemoval", "Unit", "digests_of", "names_of", "size_of"]


@dataclass(frozen=True, slots=True)
class ReadyLayer:
    """A prepared layer and what the journal said of it when it was claimed."""

    record: LayerRecord
    prepared: PreparedLayer

    @property
    def digest(self) -> Digest:
        """The layer's digest."""
        return self.record.digest

    @property
    def layers(self) -> Sequence[PreparedLayer]:
        """What is added for it."""
        return (self.prepared,)

    @property
    def size(self) -> int:
        """Size of what is published, in bytes."""
        return self.prepared.sidecar.tree_size


@dataclass(frozen=True, slots=True)
class ReadyImage:
    """An image, what the journal said of it when it was claimed, and its layers that the repository does not have."""

    record: ImageRecord
    version: ImageVersion
    layers: Sequence[PreparedLayer]
    since: float = field(default_factory=time.monotonic)
    """When it got ready, by the monotonic clock."""

    @property
    def size(self) -> int:
        """Size of what is published, in bytes."""
        return sum(prepared.sidecar.tree_size for prepared in self.layers)


@dataclass(frozen=True, slots=True)
class ReadyRemoval:
    """An image that is to go, and what the journal said of it when it was claimed."""

    record: ImageRecord

    @property
    def layers(self) -> Sequence[PreparedLayer]:
        """What is added for it: nothing."""
        return ()

    @property
    def size(self) -> int:
        """Size of what is published: nothing."""
        return 0


Unit = ReadyLayer | ReadyImage | ReadyRemoval


def digests_of(units: Sequence[Unit]) -> tuple[Digest, ...]:
    """Return the digests of the layers that units bring."""
    return tuple(prepared.layer.digest for unit in units for prepared in unit.layers)


def names_of(units: Sequence[Unit]) -> tuple[ImageName, ...]:
    """Return the names of the images among units, those to be removed included."""
    return tuple(unit.record.name for unit in units if not isinstance(unit, ReadyLayer))


def size_of(units: Sequence[Unit]) -> int:
    """Return the size of what units publish, in bytes."""
    return sum(unit.size for unit in units)
