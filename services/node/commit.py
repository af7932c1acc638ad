"""Commit of a thin container: every local layer of its lineage is uploaded, and the descriptor names them all."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from services.common.allocator import release_free_memory
from services.common.archive.compression import write_archive, writing_memory
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerArchive
from services.common.archive.pack import has_changes
from services.common.descriptor import DESCRIPTOR_NAME, LAYER_LIMIT, LayerUrl, ThinDescriptor, ThinLayer
from services.common.digest import Digest
from services.common.errors import SuiteError
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.common.streams import run_in_thread
from services.node.errors import CommitError
from services.node.layers import Layer
from services.node.lineage import Lineage
from services.node.local_copies import LocalCopies, LocalCopy
from services.node.masks import MaskStore
from services.node.metrics import NodeMetrics
from services.node.removal import delete_leftovers
from services.node.store import NodeStore
from services.node.tree_size import is_small
from services.node.work_memory import SMALL_WORK, WorkMemory

__all__ = ["Committer"]

_log = structlog.get_logger(__name__)

_HEIGHT: Final = LAYER_LIMIT - 1
"""Most directories of a descriptor that a container can stand on: Docker's have a layer of their own above them."""
_SMALL_TREE: Final = 1 << 20
"""Bytes of a layer that can be compressed with `SMALL_WORK`."""
_NOTHING: Final[frozenset[bytes]] = frozenset()
_DESCRIPTOR: Final = frozenset({DESCRIPTOR_NAME.encode()})


@dataclass(frozen=True, slots=True)
class _Part:
    """A local layer that becomes a layer of the descriptor."""

    layer: Layer
    exclude: frozenset[bytes]
    """Paths that stay out of the archive."""


class Committer:
    """Turns local layers into published ones.

    Parameters
    ----------
    copies
        Keeps what has been uploaded until it shows in its repository.
    masks
        Says which of a container's layers take two places in its union.
    store
        Where layers are uploaded; None where none is configured, which only commits of thin containers need.
    repository
        Where layers are to be published; by default the repository of the descriptor's topmost layer.
    layout
        Form of the paths that descriptors name.
    limits
        What a publisher would refuse is not committed: it would be found out when the container is gone.
    metrics
        Counts uploads.
    memory
        What layers wait for before they are compressed, and before they are sent.
    """

    def __init__(
        self,
        *,
        copies: LocalCopies,
        masks: MaskStore,
        store: NodeStore | None,
        repository: RepositoryName | None,
        layout: LayerLayout,
        limits: ArchiveLimits,
        metrics: NodeMetrics,
        memory: WorkMemory,
    ) -> None:
        self._copies = copies
        self._masks = masks
        self._store = store
        self._repository = repository
        self._layout = layout
        self._limits = limits
        self._metrics = metrics
        self._memory = memory

    async def commit(self, layer: Layer, lineage: Lineage) -> ThinDescriptor:
        """Upload a container's changes and every local layer below them, base first.

        Parameters
        ----------
        layer
            The container's own layer.
        lineage
            What lies below it; thin.

        Returns
        -------
        ThinDescriptor
            The lineage's descriptor with the uploaded layers on top; as it was, if there was nothing to upload.

        Raises
        ------
        CommitError
            Nothing was committed; the text gives the reason. The container's files are untouched.
        """
        if lineage.descriptor is None:
            raise CommitError(f"layer {layer.id} is no thin container")
        parts = await asyncio.to_thread(_parts, layer, lineage)
        await asyncio.to_thread(self._check_height, layer, lineage.descriptor, len(parts))
        try:
            added = [await self._publish(part, lineage.descriptor) for part in parts]
        finally:
            # Compression has used a multiple of what a front end otherwise does, which may stay idle for days now.
            await run_in_thread(release_free_memory)
        return lineage.descriptor.with_layers(*added)

    def _check_height(self, layer: Layer, descriptor: ThinDescriptor, added: int) -> None:
        """Make sure that containers of the new image can be started, as far as their unions are known here."""
        digests = {Digest(each.digest) for each in descriptor.layers}
        height = len(digests) + self._masks.count(digests) + added
        if added and height > _HEIGHT:
            raise CommitError(
                f"layer {layer.id} was not committed: no container of the new image could start, since its {height} "
                f"layers, those that carry deletions counted twice, are more than the {_HEIGHT} that the kernel stacks "
                "below a container: flatten the image"
            )

    async def _publish(self, part: _Part, descriptor: ThinDescriptor) -> ThinLayer:
        if self._store is None:
            raise CommitError("a thin container cannot be committed: no object store is configured (LAYER_STORE_*)")
        repository = self._target(descriptor)
        spools = list[Path]()

        def write() -> LayerArchive:
            # Made in here: a cancellation between making and remembering it would leave it behind.
            spools.append(self._copies.new_spool())
            return write_archive(part.layer.diff, spools[0] / "new", exclude=part.exclude, limits=self._limits)

        try:
            small = await asyncio.to_thread(is_small, part.layer.diff, most=_SMALL_TREE)
            async with self._memory.begin(SMALL_WORK if small else writing_memory()):
                archive = await run_in_thread(write)
            url = LayerUrl.of(repository, archive.digest, self._layout)
            log = _log.bind(layer=part.layer.id, digest=archive.digest, repository=repository)
            async with self._memory.go_on(self._store.memory(archive)):
                with self._metrics.uploads.one():
                    created = await self._store.upload(archive, repository=repository)
            self._metrics.uploaded_bytes.inc(archive.size if created else 0)
            await run_in_thread(lambda: self._copies.keep(LocalCopy(archive, url)))
        except (SuiteError, OSError) as error:
            raise CommitError(f"layer {part.layer.id} was not committed: {error}") from error
        finally:
            await run_in_thread(lambda: delete_leftovers(spools))  # gone already if the archive has been kept
        log.info("layer_uploaded", size=archive.size, uncompressed_size=archive.uncompressed_size, created=created)
        return ThinLayer(digest=archive.digest, url=url)

    def _target(self, descriptor: ThinDescriptor) -> RepositoryName:
        if self._repository is not None:
            return self._repository
        return descriptor.layers[-1].location.repository


def _parts(layer: Layer, lineage: Lineage) -> Sequence[_Part]:
    """Return what has to be uploaded, base first; layers without changes are left out."""
    parts = [_Part(local, _NOTHING) for local in reversed(lineage.local)]
    if lineage.thin is not None and lineage.thin_has_files:
        parts.insert(0, _Part(lineage.thin, _DESCRIPTOR))
    parts.append(_Part(layer, _NOTHING))
    return [part for part in parts if has_changes(part.layer.diff, exclude=part.exclude)]
