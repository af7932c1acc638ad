"""Units that wait for a transaction, and how they are put together to batches."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.publisher.pipeline.units import Unit

__all__ = ["BatchLimits", "ReadyQueue"]


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much one transaction publishes; a single unit may be more."""

    layers: int
    """Layers; an image that brings none counts as one."""
    size: int
    """Bytes."""


class ReadyQueue:
    """Units in the order in which they got ready, and how many are on their way."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._waiting: list[Unit] = []
        self._filled = asyncio.Event()
        self._coming = 0
        self._changed = asyncio.Event()

    def expect(self) -> None:
        """Take note that a unit is on its way, which `put` or `give_up` ends."""
        self._coming += 1

    def give_up(self) -> None:
        """Take note that a unit which was on its way does not come."""
        self._coming -= 1
        self._changed.set()

    def put(self, unit: Unit) -> None:
        """Add a unit that was on its way."""
        self._coming -= 1
        self._waiting.append(unit)
        self._filled.set()
        self._changed.set()

    def put_back(self, batch: list[Unit]) -> None:
        """Return a batch whose transaction could not be opened to the head of the queue."""
        self._waiting[:0] = batch
        self._filled.set()

    async def take(self) -> list[Unit]:
        """Wait until there is a unit; take it and those that may go with it, waiting for no others."""
        await self._filled.wait()
        return self._take([])

    async def join(self, batch: Sequence[Unit], *, patience: float) -> list[Unit]:
        """Take what may go with a batch whose transaction is open; where there is nothing, wait for what is on its way.

        Parameters
        ----------
        batch
            What the transaction has.
        patience
            Most seconds to wait for one unit.
        """
        try:
            async with asyncio.timeout(patience):
                while not (joined := self._take(batch)) and self._coming > 0 and not _Load(self._limits, batch).is_full:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return []
        return joined

    def _take(self, batch: Sequence[Unit]) -> list[Unit]:
        """Take those that may go together, and with a batch."""
        taken: list[Unit] = []
        load = _Load(self._limits, batch)
        for unit in self._waiting:
            if load.takes(unit):
                load.add(unit)
                taken.append(unit)
        if taken:
            kept = {id(unit) for unit in taken}
            self._waiting = [unit for unit in self._waiting if id(unit) not in kept]
        if not self._waiting:
            self._filled.clear()
        return taken


class _Load:
    """What a batch has, and whether more may go with it."""

    def __init__(self, limits: BatchLimits, batch: Iterable[Unit]) -> None:
        self._limits = limits
        self._units, self._layers, self._size = 0, 0, 0
        self._share: int | None = None
        for unit in batch:
            self.add(unit)

    def add(self, unit: Unit) -> None:
        """Add a unit."""
        self._units += 1
        self._layers += _weight(unit)
        self._size += unit.size
        self._share = min(filter(None, (self._share, unit.record.share)), default=None)

    @property
    def is_full(self) -> bool:
        """Whether nothing may join it."""
        return self._layers >= self._limits.layers or (self._share is not None and self._units >= self._share)

    def takes(self, unit: Unit) -> bool:
        """Whether a unit may join; anything may that is alone."""
        if not self._units:
            return True
        share = min(filter(None, (self._share, unit.record.share)), default=self._units + 1)
        return (
            self._units < share
            and self._layers + _weight(unit) <= self._limits.layers
            and self._size + unit.size <= self._limits.size
        )


def _weight(unit: Unit) -> int:
    return max(1, len(unit.layers))
