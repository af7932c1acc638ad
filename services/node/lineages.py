"""Layers and what lies below them, looked up off the event loop."""

from services.common.streams import run_in_thread
from services.node.layers import Layer, LayerId, LayerStore
from services.node.lineage import Lineage, trace

__all__ = ["Lineages"]


class Lineages:
    """Look-ups in the layers of one home directory.

    Parameters
    ----------
    layers
        The local layers.
    """

    def __init__(self, layers: LayerStore) -> None:
        self._layers = layers

    async def find(self, layer_id: LayerId) -> Layer:
        """Return a layer's record.

        Raises
        ------
        UnknownLayerError
            There is none.
        LineageError
            The record is damaged.
        """
        # Without a thread where nothing has to be read: a short operation is mostly changes between threads.
        known = self._layers.known(layer_id)
        return known if known is not None else await run_in_thread(lambda: self._layers.find(layer_id))

    async def chain(self, layer: Layer) -> list[Layer]:
        """Return a layer and its ancestors, top first.

        Raises
        ------
        LineageError
            An ancestor is missing, or its record is damaged.
        """
        return await run_in_thread(lambda: self._layers.chain(layer.id))

    async def of(self, layer: Layer) -> Lineage:
        """Return what lies below a layer.

        Raises
        ------
        LineageError
            An ancestor is missing, or the descriptor that decides is unusable.
        """
        return await run_in_thread(lambda: trace(self._layers.chain(layer.id)))
