"""Prepared layers that wait for a transaction, and how they are put together to batches."""

import asyncio
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
    """Layers in the order in which they got ready."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._waiting: list[ReadyLayer] = []
        self._filled = asyncio.Event()

    def put(self, layer: ReadyLayer) -> None:
        """Add a layer."""
        self._waiting.append(layer)
        self._filled.set()

    def put_back(self, batch: list[ReadyLayer]) -> None:
        """Return a batch whose transaction could not be opened to the head of the queue."""
        self._waiting[:0] = batch
        self._filled.set()

    async def take(self) -> list[ReadyLayer]:
        """Wait until there is a layer; take it and those that may go with it, waiting for no others."""
        await self._filled.wait()
        batch: list[ReadyLayer] = []
        size, room = 0, self._limits.layers
        for layer in self._waiting:
            shared = min(room, layer.record.share or self._limits.layers)
            if batch and (len(batch) >= shared or size + layer.size > self._limits.size):
                continue
            batch.append(layer)
            size, room = size + layer.size, shared
        self._waiting = [layer for layer in self._waiting if layer not in batch]
        if not self._waiting:
            self._filled.clear()
        return batch
