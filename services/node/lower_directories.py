"""The directories that the descriptor below an image's local layers stands for.

From the top: each of its layers, last listed first, with its mask directly below it; above them the files that the
layer of the descriptor holds beside it, with the descriptor hidden.
"""

import asyncio
from pathlib import Path

import structlog

from services.common.archive.errors import ArchiveError
from services.common.descriptor import LayerUrl, ThinDescriptor
from services.node.cvmfs.finder import LayerFinder
from services.node.errors import LayerNotPublishedError
from services.node.lineage import Lineage
from services.node.local_copies import LocalCopies
from services.node.masks import MaskStore

__all__ = ["LowerDirectories"]

_log = structlog.get_logger(__name__)


class LowerDirectories:
    """Finds them, for whoever mounts.

    Parameters
    ----------
    masks
        The masks.
    copies
        Local copies of layers that are not published yet.
    finder
        Looks layers up in repositories.
    wait
        Longest time to wait for the layers of one union to be published, in seconds.
    """

    def __init__(self, *, masks: MaskStore, copies: LocalCopies, finder: LayerFinder, wait: float) -> None:
        self._masks = masks
        self._copies = copies
        self._finder = finder
        self._wait = wait

    async def below(self, lineage: Lineage, *, holder: str) -> list[Path]:
        """Return the directories below a lineage's local layers, top first; none where all layers are local.

        Raises
        ------
        RepositoryError
            A layer of the descriptor cannot be had in time.
        """
        if lineage.descriptor is None:
            return []
        directories = await self._published(lineage.descriptor, holder=holder)
        if lineage.thin is not None and lineage.thin_has_files:
            return [await asyncio.to_thread(self._masks.hiding_descriptor), lineage.thin.diff, *directories]
        return directories

    async def _published(self, descriptor: ThinDescriptor, *, holder: str) -> list[Path]:
        """Return the directories of a descriptor's layers, top first; a local copy stands in for a missing layer."""
        # A layer that is listed twice has nothing to add where it is listed first, and the kernel refuses it there.
        layers = list({layer.digest: layer for layer in reversed(descriptor.layers)}.values())
        kept = [layer for layer in layers if layer.id in self._copies]
        findings = await self._finder.find([layer.location for layer in kept], holder=holder)
        for error in findings.failures:
            _log.warning("local_copy_stands_in", reason=str(error))
        stand_ins: dict[LayerUrl, Path] = {}
        useless = ""
        for layer in kept:
            if layer.location not in findings.found:
                try:
                    tree = await self._copies.tree(layer.id, holder=holder)
                except (ArchiveError, OSError) as error:
                    # The layer itself is in the object store, and is going to show.
                    _log.error("local_copy_useless", digest=layer.digest, reason=str(error))
                    useless = f"; the local copy of layer {layer.digest} is of no use: {error}"
                    continue
                if tree is not None:
                    stand_ins[layer.location] = tree
        rest = [layer.location for layer in layers if layer.location not in stand_ins]
        try:
            published = await self._finder.wait(rest, holder=holder, timeout=self._wait)
        except LayerNotPublishedError as error:
            raise LayerNotPublishedError(f"{error}{useless}") from error
        directories: list[Path] = []
        for layer in layers:
            if (tree := stand_ins.get(layer.location)) is not None:
                directories.append(tree)
                continue
            place = published[layer.location]
            directories.append(place.tree)
            if place.mask is not None:
                directories.append(place.mask)
        return directories
