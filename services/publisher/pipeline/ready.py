"""Prepared layers that wait for a transaction, and how they are put together to batches."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.common.digest import Digest
from services.publisher.journal.model import LayerRecord
from services.repository.interface import PreparedLayer

__all__ = ["BatchLimits", "ReadyLayer", "ReadyQueue"]


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
    def size(self) -> int:
        """Size of what is published, in bytes."""
        return self.prepared.sidecar.tree_size


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much one transaction publishes."""

    layers: int
    size: int
    """Bytes; a single layer may be larger."""


class ReadyQueue:
    """Layers in the order in which they got ready, and how many are on their way."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._waiting: list[ReadyLayer] = []
        self._filled = asyncio.Event()
        self._coming = 0
        self._changed = asyncio.Event()

    def expect(self) -> None:
        """Take note that a layer is on its way, which `put` or `give_up` ends."""
        self._coming += 1

    def give_up(self) -> None:
        """Take note that a layer which was on its way does not come."""
        self._coming -= 1
        self._changed.set()

    def put(self, layer: ReadyLayer) -> None:
        """Add a layer that was on its way."""
        self._coming -= 1
        self._waiting.append(layer)
        self._filled.set()
        self._changed.set()

    def put_back(self, batch: list[ReadyLayer]) -> None:
        """Return a batch whose transaction could not be opened to the head of the queue."""
        self._waiting[:0] = batch
        self._filled.set()

    async def take(self) -> list[ReadyLayer]:
        """Wait until there is a layer; take it and those that may go with it, waiting for no others."""
        await self._filled.wait()
        return self._take([])

    async def join(self, batch: Sequence[ReadyLayer], *, patience: float) -> list[ReadyLayer]:
        """Take what may go with a batch whose transaction is open; where there is nothing, wait for what is on its way.

        Parameters
        ----------
        batch
            What the transaction has.
        patience
            Most seconds to wait for one layer.
        """
        try:
            async with asyncio.timeout(patience):
                while not (joined := self._take(batch)) and self._coming > 0 and self._room(batch) > len(batch):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return []
        return joined

    def _room(self, batch: Iterable[ReadyLayer]) -> int:
        """Return how many layers a batch may have."""
        return min((layer.record.share or self._limits.layers for layer in batch), default=self._limits.layers)

    def _take(self, batch: Sequence[ReadyLayer]) -> list[ReadyLayer]:
        """Take those that may go together, and with a batch."""
        taken: list[ReadyLayer] = []
        room, count, size = self._room(batch), len(batch), sum(layer.size for layer in batch)
        for layer in self._waiting:
            shared = min(room, layer.record.share or self._limits.layers)
            if count and (count >= shared or size + layer.size > self._limits.size):
                continue
            taken.append(layer)
            room, count, size = shared, count + 1, size + layer.size
        if taken:
            kept = {layer.digest for layer in taken}
            self._waiting = [layer for layer in self._waiting if layer.digest not in kept]
        if not self._waiting:
            self._filled.clear()
        return taken
