"""Lineage: which layers a union is made of.

The topmost thin.json in the image's local layers decides everything at and below it; local layers above it stack on
top (docs/ARCHITECTURE.md, union order). A layer that holds files beside its thin.json counts as a local layer just
above the descriptor's, with thin.json hidden: nothing that somebody put into an image is dropped.

A file of that name which is no descriptor is an ordinary file, of which the log tells once. A descriptor that a layer
above deletes, or has something other than a file in its place, does not count, nor does any below it: the image is a
regular one, of what its local layers hold. An ordinary file above is no deletion: containers do not see the descriptor,
so who writes a file of its name there replaces nothing.
"""

import contextlib
import errno
import functools
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.common.archive.ondisk import is_opaque, is_whiteout
from services.common.descriptor import DESCRIPTOR_LIMIT, DESCRIPTOR_NAME, NotADescriptorError, ThinDescriptor
from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.repository_name import RepositoryName
from services.node.errors import LineageError
from services.node.layers import Layer, LayerId, LayerKind

__all__ = ["Lineage", "holds_descriptor", "named_layers", "read_descriptor", "trace", "trace_below"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Lineage:
    """What lies below a layer."""

    container: Sequence[Layer]
    """Layers of the container below its own (the init layer), top first; no part of an image."""
    local: Sequence[Layer]
    """Local image layers, top first: all of them, or those above the thin layer."""
    thin: Layer | None
    """The layer whose thin.json decides; none for an image that is not thin."""
    thin_has_files: bool
    """Whether the thin layer holds files beside thin.json."""
    descriptor: ThinDescriptor | None
    """The layers below all local ones that are in repositories: the content of that thin.json, or without one a front
    end's own knowledge of a regular image's layers; None if there are none."""

    @property
    def repositories(self) -> list[RepositoryName]:
        """The repositories that the descriptor names, sorted."""
        layers = self.descriptor.layers if self.descriptor is not None else ()
        return sorted({layer.location.repository for layer in layers})


def holds_descriptor(layer: Layer) -> bool:
    """Return whether the thin.json at the root of a layer is a descriptor, be it one that cannot be used here."""
    try:
        return read_descriptor(layer) is not None
    except LineageError:
        return True


def read_descriptor(layer: Layer) -> ThinDescriptor | None:
    """Read the descriptor at the root of a layer; None if it holds none.

    Raises
    ------
    LineageError
        There is one, but it cannot be used here, or not be read.
    """
    status = _lstat(layer)
    if status is None or not stat.S_ISREG(status.st_mode):
        return None
    return _parsed(
        layer.diff / DESCRIPTOR_NAME, layer.id, (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    )


def _lstat(layer: Layer) -> os.stat_result | None:
    try:
        return os.lstat(layer.diff / DESCRIPTOR_NAME)
    except FileNotFoundError:
        return None


@functools.lru_cache(maxsize=1024)
def _parsed(place: Path, layer: LayerId, _state: tuple[int, ...]) -> ThinDescriptor | None:
    """Read a file once in the state that it is in, so that what is no descriptor is told of once."""
    try:
        content = _read(place)
    except OSError as error:
        raise LineageError(f"layer {layer}: {DESCRIPTOR_NAME} cannot be read: {error.strerror}") from error
    if content is None:
        return None
    try:
        return ThinDescriptor.parse(content, where=f"layer {layer}")
    except NotADescriptorError as error:
        _log.warning("thin_json_is_an_ordinary_file", layer=layer, reason=str(error))
        return None
    except InvalidValueError as error:
        raise LineageError(str(error)) from error


def _read(place: Path) -> bytes | None:
    # The layer may be a build step that is still being written, and the name by now gone, a link or that of a pipe.
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            return None
        raise
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return file.read(DESCRIPTOR_LIMIT + 1)


def _deletes(layer: Layer) -> bool:
    """Tell whether a layer deletes a descriptor that lies below it."""
    status = _lstat(layer)
    return (status is not None and is_whiteout(status)) or is_opaque(os.fsencode(layer.diff))


def _hides(layer: Layer) -> bool:
    """Tell whether a layer deletes a descriptor that lies below it, or has no file in its place."""
    status = _lstat(layer)
    return (status is not None and not stat.S_ISREG(status.st_mode)) or _deletes(layer)


def named_layers(layers: Iterable[Layer]) -> set[Digest]:
    """Return the digests of the published layers that any of these layers names.

    Raises
    ------
    LineageError
        There is a descriptor that cannot be used here.
    """
    named: set[Digest] = set()
    for layer in layers:
        with contextlib.suppress(FileNotFoundError):  # the layer goes just now
            if layer.kind is LayerKind.IMAGE and (descriptor := read_descriptor(layer)) is not None:
                named.update(part.id for part in descriptor.layers)
    return named


def trace(chain: Sequence[Layer]) -> Lineage:
    """Find the lineage of a layer.

    Parameters
    ----------
    chain
        The layer, its parent, and so on to the base. What the layer itself holds, and may just be writing, does not
        change what it stands on, unless it came as one that deletes a descriptor.

    Raises
    ------
    LineageError
        The descriptor that decides cannot be used here.
    """
    return _trace(chain[0], chain[1:])


def trace_below(ancestors: Sequence[Layer]) -> Lineage:
    """Find what a layer stands on that does not exist yet, from its ancestors, top first; raises as `trace`."""
    return _trace(None, ancestors)


def _trace(top: Layer | None, ancestors: Sequence[Layer]) -> Lineage:
    container = [layer for layer in ancestors if layer.kind is LayerKind.CONTAINER]
    images = [layer for layer in ancestors if layer.kind is LayerKind.IMAGE]
    for number, layer in enumerate(images):
        if not holds_descriptor(layer):
            continue
        local = images[:number]
        if (top is not None and top.kind is LayerKind.IMAGE and _deletes(top)) or any(map(_hides, local)):
            break
        if (descriptor := read_descriptor(layer)) is None:
            continue  # a build step has just changed it
        with os.scandir(layer.diff) as entries:
            has_files = any(entry.name != DESCRIPTOR_NAME for entry in entries)
        return Lineage(container, local, layer, has_files, descriptor)
    return Lineage(container, images, None, thin_has_files=False, descriptor=None)
