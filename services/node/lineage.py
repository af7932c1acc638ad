"""Lineage: which layers a union is made of.

The topmost thin.json in the image's local layers decides everything at and below it; local layers above it stack on
top (docs/ARCHITECTURE.md, union order). A layer that holds files beside its thin.json counts as a local layer just
above the descriptor's, with thin.json hidden: nothing that somebody put into an image is dropped.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.common.descriptor import DESCRIPTOR_LIMIT, DESCRIPTOR_NAME, ThinDescriptor
from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.repository_name import RepositoryName
from services.node.errors import LineageError
from services.node.layers import Layer, LayerKind

__all__ = ["Lineage", "holds_descriptor", "named_layers", "read_descriptor", "trace"]


@dataclass(frozen=True, slots=True)
class Lineage:
    """What lies below a layer."""

    container: Sequence[Layer]
    """Layers of the container below its own (the init layer), top first; no part of an image."""
    local: Sequence[Layer]
    """Local image layers, top first: all of them, or those above the thin layer."""
    thin: Layer | None
    """The layer whose thin.json decides; none for a regular image."""
    thin_has_files: bool
    """Whether the thin layer holds files beside thin.json."""
    descriptor: ThinDescriptor | None
    """The content of that thin.json."""

    @property
    def repositories(self) -> list[RepositoryName]:
        """The repositories that the descriptor names, sorted."""
        layers = self.descriptor.layers if self.descriptor is not None else ()
        return sorted({layer.location.repository for layer in layers})


def holds_descriptor(layer: Layer) -> bool:
    """Return whether there is a thin.json at the root of a layer; a link or a device of this name is none."""
    try:
        return stat.S_ISREG(os.lstat(layer.diff / DESCRIPTOR_NAME).st_mode)
    except FileNotFoundError:
        return False


def read_descriptor(layer: Layer) -> ThinDescriptor | None:
    """Read the thin.json at the root of a layer; None if it holds none.

    Raises
    ------
    LineageError
        There is one, but it is no usable descriptor.
    """
    if not holds_descriptor(layer):
        return None
    # O_NONBLOCK: the layer may be a build step that is still being written, and the name now that of a pipe.
    descriptor = os.open(layer.diff / DESCRIPTOR_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(DESCRIPTOR_LIMIT + 1)
    try:
        return ThinDescriptor.parse(content, where=f"layer {layer.id}")
    except InvalidValueError as error:
        raise LineageError(str(error)) from error


def named_layers(layers: Iterable[Layer]) -> set[Digest]:
    """Return the digests of the published layers that any of these layers names.

    Raises
    ------
    LineageError
        There is a thin.json that is no usable descriptor.
    """
    named: set[Digest] = set()
    for layer in layers:
        with contextlib.suppress(FileNotFoundError):  # the layer goes just now
            if layer.kind is LayerKind.IMAGE and (descriptor := read_descriptor(layer)) is not None:
                named.update(part.id for part in descriptor.layers)
    return named


def trace(ancestors: Sequence[Layer]) -> Lineage:
    """Find the lineage of a layer from its ancestors.

    Parameters
    ----------
    ancestors
        The layer's parent, its parent, and so on to the base; the layer itself is not among them, since what a
        container writes does not change what it stands on.

    Raises
    ------
    LineageError
        A thin.json that decides is no usable descriptor.
    """
    container = [layer for layer in ancestors if layer.kind is LayerKind.CONTAINER]
    local: list[Layer] = []
    for layer in ancestors:
        if layer.kind is LayerKind.CONTAINER:
            continue
        descriptor = read_descriptor(layer)
        if descriptor is not None:
            with os.scandir(layer.diff) as entries:
                has_files = any(entry.name != DESCRIPTOR_NAME for entry in entries)
            return Lineage(container, local, layer, has_files, descriptor)
        local.append(layer)
    return Lineage(container, local, None, thin_has_files=False, descriptor=None)
