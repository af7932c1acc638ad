"""What lies below a snapshot: the lower directories of its mount."""

import asyncio
import os
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Final

from services.common.descriptor import DESCRIPTOR_NAME, ThinDescriptor, ThinLayer
from services.common.digest import Digest
from services.common.serial import SerialThread
from services.node.cvmfs.repository_io import RepositoryIo
from services.node.layers import Layer, LayerKind
from services.node.lineage import Lineage, named_layers, trace_below
from services.node.lower_directories import LowerDirectories
from services.node.masks import MaskStore
from services.node.work_gate import WorkGate
from services.snapshotter.store.model import Kind, Snapshot
from services.snapshotter.store.store import Attributes, SnapshotStore

__all__ = ["Below", "Unions", "is_init", "layers_of"]

_INIT: Final = re.compile(r"(?:.*/)?[0-9a-f]{64}-init")
"""Name of the snapshot with what dockerd puts into every container: its id, behind containerd's prefix."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Below:
    """What lies below a snapshot."""

    directories: Sequence[Path]
    """Top first."""
    thin: bool
    """Whether some of it is in repositories."""
    attributes: Attributes | None
    """Of the topmost directory; None where there is none."""


def is_init(snapshot: Snapshot) -> bool:
    """Return whether a snapshot is what dockerd puts below a container's own."""
    return _INIT.fullmatch(snapshot.name) is not None


def layers_of(store: SnapshotStore, chain: Sequence[Snapshot]) -> list[Layer]:
    """Return a chain of snapshots as the node core sees it, top first.

    An init layer is the container's as long as nothing of an image is above it. After a commit it lies below the new
    layer for ever, and has to stay in its place.
    """
    layers: list[Layer] = []
    kind = LayerKind.CONTAINER
    for snapshot in chain:
        if not is_init(snapshot):
            kind = LayerKind.IMAGE
        layers.append(store.layer(snapshot, kind))
    return layers


class Unions:
    """Finds the lower directories of snapshots.

    Parameters
    ----------
    store
        The snapshots.
    thread
        Where the store is used.
    directories
        Finds what thin images stand for.
    io
        Threads for looks into repositories.
    masks
        The masks.
    """

    def __init__(
        self,
        *,
        store: SnapshotStore,
        thread: SerialThread,
        directories: LowerDirectories,
        io: RepositoryIo,
        masks: MaskStore,
    ) -> None:
        self._store = store
        self._thread = thread
        self._directories = directories
        self._io = io
        self._masks = masks
        self._gate = WorkGate()
        """Looks for lower directories that are under way."""
        self._regular: dict[int, Below] = {}
        """What stands on a committed snapshot of a regular image: it does not change, so it is looked for once."""

    async def lineage(self, chain: Sequence[Snapshot]) -> Lineage:
        """Return what a chain of snapshots, top first, stands for.

        Raises
        ------
        LineageError
            The descriptor that decides is unusable.
        """
        return await asyncio.to_thread(self._trace, chain)

    def _trace(self, chain: Sequence[Snapshot]) -> Lineage:
        """Find what a chain of snapshots stands for.

        What is remote is so from the bottom on. It counts as a descriptor below everything local: one that somebody
        has put into the image decides all the same, and none of the image's layers can delete it.
        """
        local = list(takewhile(lambda snapshot: snapshot.remote is None, chain))
        lineage = trace_below(layers_of(self._store, local))
        remote = [snapshot.remote for snapshot in chain if snapshot.remote is not None]
        if lineage.descriptor is not None or not remote:
            return lineage
        layers = [ThinLayer(digest=url.digest, url=url) for url in reversed(remote)]
        return replace(lineage, descriptor=ThinDescriptor.of(*layers))

    def look(self, parent: int | None) -> "Below | Lineage":
        """Find the lower directories of what stands on a committed snapshot, or what `below` needs for that.

        Looks at local layers only. Blocks, and is called by the store's thread.

        Raises
        ------
        LineageError
            The descriptor that decides is unusable.
        """
        if parent is None:
            return Below((), thin=False, attributes=None)
        if (known := self._regular.get(parent)) is not None:
            return known
        chain = self._store.records.chain(parent)
        if (found := self._look_regular(chain)) is None:
            return self._trace(chain)
        self._regular[parent] = found
        return found

    def _look_regular(self, chain: Sequence[Snapshot]) -> Below | None:
        """Return what a chain is to what stands on it; None where something in it may be in repositories."""
        directories: list[Path] = []
        for snapshot in chain:
            if (known := self._regular.get(snapshot.number)) is not None:
                directories += known.directories
                break
            directory = self._store.diff(snapshot)
            if snapshot.remote is not None or os.path.lexists(directory / DESCRIPTOR_NAME):
                return None
            directories.append(directory)
        return Below(directories, thin=False, attributes=Attributes.of(directories[0]))

    def forget(self, snapshot: Snapshot) -> None:
        """Forget a snapshot that has been removed; called by the store's thread."""
        self._regular.pop(snapshot.number, None)

    async def below(self, lineage: Lineage, *, holder: str) -> Below:
        """Find the lower directories of what stands on local layers and on those of a thin image's descriptor.

        Parameters
        ----------
        lineage
            What `look` has returned.
        holder
            Who is going to use them.

        Raises
        ------
        RepositoryError
            A layer of a descriptor cannot be had in time.
        """
        local = [layer.diff for layer in (*lineage.container, *lineage.local)]
        async with self._gate.working():
            directories = [*local, *await self._directories.below(lineage, holder=holder)]
            attributes = await self._attributes(directories, lineage)
        return Below(directories, thin=lineage.descriptor is not None, attributes=attributes)

    async def _attributes(self, directories: Sequence[Path], lineage: Lineage) -> Attributes | None:
        root = self._store.root
        # A mask has none of its own.
        trees = [directory for directory in directories if not directory.is_relative_to(root / "masks")]
        if trees and trees[0].is_relative_to(root):
            return await asyncio.to_thread(Attributes.of, trees[0])
        if not trees:
            return None
        return await self._io.run(lambda: Attributes.of(trees[0]), *lineage.repositories)

    async def tidy(self) -> bool:
        """Remove the masks and links that no image here needs any more, unless somebody looks for some.

        Returns
        -------
        bool
            Whether it has been done.

        Raises
        ------
        LineageError
            A layer's descriptor is unusable; all are kept.
        """
        async with self._gate.closed():
            if not self._gate.idle:
                return False
            snapshots = await self._thread.run(self._store.records.all)
            committed = [one for one in snapshots if one.kind is Kind.COMMITTED]
            named = await asyncio.to_thread(lambda: named_layers(self._store.layer(one) for one in committed))
            named.update(one.remote.digest for one in committed if one.remote is not None)
            await self._thread.run(lambda: self._store.keep_links(lambda target: _serves(target, named)))
            await asyncio.to_thread(self._masks.keep_only, named)
            return True


def _serves(directory: str, named: AbstractSet[Digest]) -> bool:
    """Return whether a directory is, or masks, one of these layers, or hides a descriptor."""
    return not named.isdisjoint(map(Digest, _DIGEST.findall(directory))) or f"/{DESCRIPTOR_NAME}-" in directory
