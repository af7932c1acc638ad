"""Layers that have been prepared, and the holds on the objects that they use until they are published or let go."""

from contextlib import ExitStack
from dataclasses import dataclass

from services.common.digest import Digest
from services.common.threads import Stop
from services.repository.layer import VerifiedLayer
from services.repository.native.collection.wholeness import check_whole
from services.repository.native.holds import ObjectHolds
from services.repository.native.republication import Republication
from services.repository.native.storage.interface import Storage
from services.repository.native.writer.ingest import IngestedLayer, LayerIngest
from services.repository.native.writer.known_content import KnownContent

__all__ = ["HeldLayer", "PreparedLayers"]


@dataclass(slots=True)
class HeldLayer:
    """A prepared layer."""

    layer: IngestedLayer
    hold: ExitStack
    """On the objects that it uses."""
    collections: str
    """What the storage said of collections before it was prepared, or before it was found to be whole."""
    anew: bool
    """Whether all its objects have been written, whatever was there."""


class PreparedLayers:
    """The layers of one repository.

    Parameters
    ----------
    storage
        Where their objects go.
    holds
        Keep objects from being collected.
    known
        What content is there.
    republication
        Says which layers are published anew.
    ingest
        Makes objects and catalogs.
    """

    def __init__(
        self,
        *,
        storage: Storage,
        holds: ObjectHolds,
        known: KnownContent,
        republication: Republication,
        ingest: LayerIngest,
    ) -> None:
        self._storage = storage
        self._holds = holds
        self._known = known
        self._republication = republication
        self._ingest = ingest
        self._layers: dict[Digest, HeldLayer] = {}

    def prepare(self, layer: VerifiedLayer, stop: Stop) -> HeldLayer:
        """Make objects and a catalog of a layer (blocking); the caller has the hold."""
        with ExitStack() as hold:
            hold.enter_context(self._holds.take())
            collections = self._known.catch_up()
            anew = layer.digest in self._republication.layers()
            ingested = (self._ingest.ingest_anew if anew else self._ingest.ingest)(layer, stop)
            if self._storage.staged:
                self._storage.flush()  # now, side by side with other layers, and not while others wait for the lock
            return HeldLayer(ingested, hold.pop_all(), collections, anew)

    def keep(self, digest: Digest, held: HeldLayer) -> None:
        """Take a layer, in the place of one that was prepared before."""
        self.drop(digest)
        self._layers[digest] = held

    def drop(self, digest: Digest) -> None:
        """Let the objects of a layer go, if it is there."""
        held = self._layers.pop(digest, None)
        if held is not None:
            held.hold.close()

    def close(self) -> None:
        """Let the objects of all layers go."""
        while self._layers:
            self._layers.popitem()[1].hold.close()

    def is_anew(self, digest: Digest) -> bool:
        """Tell whether all objects of a layer have been written, whatever was there."""
        return self._layers[digest].anew

    def whole(self, digest: Digest, collections: str) -> HeldLayer:
        """Return a layer of which nothing has been collected (blocking).

        Parameters
        ----------
        collections
            What the storage says of collections now.

        Raises
        ------
        ObjectMissingError
            Something has.
        StorageError, BrokenRepositoryError
            It cannot be told.
        """
        held = self._layers[digest]
        if held.collections != collections:
            check_whole(self._storage, held.layer.catalog)
            held.collections = collections
        return held
