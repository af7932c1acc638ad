"""The driver: what a front end can ask for, in terms of layers."""

import asyncio
from collections.abc import AsyncIterable
from pathlib import Path

import structlog

from services.common.archive.model import LayerContent
from services.common.errors import SuiteError
from services.common.streams import run_in_thread
from services.node.diffs import Diffs
from services.node.errors import UnsupportedError
from services.node.filling import LayerFiller
from services.node.house_keeping import HouseKeeper
from services.node.interruptions import Interruptions
from services.node.layers import Layer, LayerId, LayerKind, LayerStore
from services.node.lineage import holds_descriptor
from services.node.lineages import Lineages
from services.node.locks import Locks
from services.node.mounted_unions import MountedUnions
from services.node.reports import Reports
from services.node.uses import Uses

__all__ = ["Driver"]

_log = structlog.get_logger(__name__)


class Driver:
    """Operations on the layers below one home directory.

    Operations on one layer exclude each other; those on different layers run side by side. What only reads has parts of
    its own, which a front end calls by itself.

    Parameters
    ----------
    layers
        The local layers.
    lineages
        Finds layers and what lies below them.
    unions
        Those that are mounted.
    uses
        What the unions use beside local layers.
    filler
        Unpacks what layers are filled with.
    diffs
        What layers add to those below them.
    reports
        What people want to know.
    house
        Removes what nothing needs any more.
    """

    def __init__(
        self,
        *,
        layers: LayerStore,
        lineages: Lineages,
        unions: MountedUnions,
        uses: Uses,
        filler: LayerFiller,
        diffs: Diffs,
        reports: Reports,
        house: HouseKeeper,
    ) -> None:
        self._layers = layers
        self._lineages = lineages
        self._unions = unions
        self._uses = uses
        self._filler = filler
        self.diffs = diffs
        self.reports = reports
        self.house = house
        self._locks = Locks[LayerId]()
        self._fillings = Interruptions[LayerId]()

    @property
    def home(self) -> Path:
        """The driver's directory."""
        return self._layers.home

    async def resume(self) -> None:
        """Take over what an earlier process of this program left mounted and in use."""
        adopted = await self._unions.adopt()
        for layer, lowers in adopted.items():
            self._uses.claim_copies(layer, lowers)
            try:
                lineage = await self._lineages.of(layer)
            except SuiteError as error:
                # Its union stays mounted and usable; only what it uses is not known.
                _log.warning("lineage_of_mounted_layer_unknown", layer=layer.id, error=str(error))
                continue
            self._uses.claim_repositories(layer, lineage.repositories)
        self._uses.adopt_repositories()
        _log.info("resumed", home=str(self.home), mounted=len(adopted), local_copies=self._uses.copies)

    async def begin(self) -> None:
        """Serve a new front end, which holds nothing but what it finds running."""
        await self._unions.begin()

    async def create(self, layer_id: LayerId, parent: LayerId | None, kind: LayerKind) -> None:
        """Make an empty layer.

        Raises
        ------
        LayerExistsError
            There is a layer of that id.
        UnknownLayerError
            There is no layer of the parent's id.
        """
        async with self._locks.hold(layer_id):
            await run_in_thread(lambda: self._layers.create(layer_id, parent, kind))

    async def remove(self, layer_id: LayerId) -> None:
        """Unmount and delete a layer, whoever holds it or fills it; nothing happens if there is none."""
        # Whoever fills it may never come to an end: its source is somewhere in a network.
        self._fillings.interrupt(layer_id, f"layer {layer_id} was removed while it was being filled")
        async with self._locks.hold(layer_id):
            # Nothing of this needs the layer's record, which may be damaged.
            await self._unions.discard(layer_id)
            self._uses.forget(layer_id)
            await run_in_thread(lambda: self._layers.remove(layer_id))
            self.house.note_removal()

    async def exists(self, layer_id: LayerId) -> bool:
        """Return whether there is a layer of that id."""
        # On the event loop: a change of threads takes a hundred times as long as this look at a local directory.
        return self._layers.exists(layer_id)

    async def get(self, layer_id: LayerId, *, label: str) -> Path:
        """Return a directory that shows a layer on top of all below it, writable.

        An image layer that stands on nothing is its own view. So is one that holds a thin.json: whoever asks for it
        (push, save) wants that file, and gets it where no repository can be reached, too.
        """
        async with self._locks.hold(layer_id):
            layer = await self._lineages.find(layer_id)
            if layer.kind is LayerKind.IMAGE and layer_id not in self._unions and await _is_own_view(layer):
                return layer.diff
            lineage = await self._lineages.of(layer)
            try:
                return await self._unions.acquire(layer, lineage, label=label)
            except BaseException:
                if layer_id not in self._unions:
                    self._uses.forget(layer_id)
                raise

    async def put(self, layer_id: LayerId) -> None:
        """Give a view back; harmless where none was asked for."""
        async with self._locks.hold(layer_id):
            if await self._unions.release(layer_id):
                self._uses.forget(layer_id)

    async def apply(self, layer_id: LayerId, chunks: AsyncIterable[bytes]) -> LayerContent:
        """Fill a layer with the content of an uncompressed layer tar, all of it or nothing.

        Raises
        ------
        ArchiveError
            The tar is damaged, breaks a rule, or breaks a limit.
        InterruptedWorkError
            The layer was removed meanwhile.
        """
        return await self._fillings.run(layer_id, self._apply(layer_id, chunks))

    async def _apply(self, layer_id: LayerId, chunks: AsyncIterable[bytes]) -> LayerContent:
        async with self._locks.hold(layer_id):
            layer = await self._lineages.find(layer_id)
            if layer_id in self._unions:
                raise UnsupportedError(f"layer {layer_id} is in use and cannot be filled")
            return await self._filler.fill(layer, chunks)

    async def shut_down(self) -> None:
        """Unmount everything; the front end's containers have ended."""
        for layer_id in self._unions.mounted():
            async with self._locks.hold(layer_id):
                await self._unions.discard(layer_id)
                self._uses.forget(layer_id)
        await self._uses.shut_down()


async def _is_own_view(layer: Layer) -> bool:
    return layer.parent is None or await asyncio.to_thread(holds_descriptor, layer)
