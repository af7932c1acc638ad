"""What a snapshot is in a thin image: its files and those of the local layers below it are uploaded."""

from collections.abc import Sequence
from typing import Final

from pydantic import TypeAdapter

from services.common.descriptor import ThinDescriptor, ThinLayer
from services.common.serial import SerialThread
from services.node.commit import Committer
from services.node.errors import CommitError
from services.node.layers import Layer
from services.node.lineage import Lineage
from services.node.locks import Locks
from services.snapshotter.store.model import Kind, Snapshot
from services.snapshotter.store.store import SnapshotStore
from services.snapshotter.unions import is_init

__all__ = ["Uploads"]

_LAYERS: Final = TypeAdapter(tuple[ThinLayer, ...])


class Uploads:
    """Uploads snapshots, each committed one once.

    A build asks for all its layers at the same time, and each stands on those before it.

    Parameters
    ----------
    store
        The snapshots.
    thread
        Where the store is used.
    committer
        Uploads layers.
    """

    def __init__(self, *, store: SnapshotStore, thread: SerialThread, committer: Committer) -> None:
        self._store = store
        self._thread = thread
        self._committer = committer
        self._locks = Locks[int]()

    async def descriptor(self, chain: Sequence[Snapshot], lineage: Lineage) -> ThinDescriptor:
        """Return the descriptor of a thin image that has a snapshot as its topmost layer.

        Parameters
        ----------
        chain
            The snapshot and what it stands on, top first.
        lineage
            What lies below the snapshot; thin.

        Raises
        ------
        CommitError
            Something could not be uploaded.
        """
        if lineage.descriptor is None:
            raise CommitError(f"snapshot {chain[0].name} stands on no thin image")
        by_number = {snapshot.number: snapshot for snapshot in chain}
        own = chain[0]
        # What dockerd puts into every container is no part of an image, also where a commit has left it in the chain.
        local = [by_number[int(layer.id)] for layer in reversed(lineage.local)]
        descriptor, thin_has_files = lineage.descriptor, lineage.thin_has_files
        for snapshot in (*(one for one in local if not is_init(one)), own):
            below = Lineage((), (), lineage.thin, thin_has_files, descriptor)
            descriptor = descriptor.with_layers(*await self._layers(snapshot, below))
            thin_has_files = False
        return descriptor

    async def _layers(self, snapshot: Snapshot, below: Lineage) -> Sequence[ThinLayer]:
        layer = self._store.layer(snapshot)
        if snapshot.kind is not Kind.COMMITTED:
            return await self._upload(layer, below)
        async with self._locks.hold(snapshot.number):
            noted = await self._thread.run(lambda: self._store.records.published(snapshot.number))
            if noted is not None:
                return _LAYERS.validate_json(noted)
            layers = await self._upload(layer, below)
            text = _LAYERS.dump_json(tuple(layers)).decode()
            await self._thread.run(lambda: self._store.records.note_published(snapshot.number, text))
            return layers

    async def _upload(self, layer: Layer, below: Lineage) -> Sequence[ThinLayer]:
        before = below.descriptor.layers if below.descriptor is not None else ()
        return (await self._committer.commit(layer, below)).layers[len(before) :]
