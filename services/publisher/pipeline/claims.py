"""The layers to work on, one after the other as they fall due."""

import asyncio
import time
from typing import Final

from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerRecord
from services.publisher.pipeline.flights import Flights
from services.publisher.pipeline.gate import Gate
from services.publisher.pipeline.ready import ReadyQueue

__all__ = ["Claims"]

_TICK: Final = 0.001
"""Seconds that a wait for a due layer is longer than needed, so that it never ends a moment too early."""


class Claims:
    """Claims layers in the journal, while publishing is not paused.

    Parameters
    ----------
    ready
        Told of every layer that is on its way from its claim on.
    flights
        Has every layer that is claimed, here or for an image, until what became of it is known.
    """

    def __init__(self, *, journal: Journal, gate: Gate, ready: ReadyQueue, flights: Flights) -> None:
        self._journal = journal
        self._gate = gate
        self._flights = flights
        self._ready = ready
        self._announced = asyncio.Event()

    def wake(self) -> None:
        """Look at the journal: there is something new in it, or something is due at another time."""
        self._announced.set()

    async def next(self) -> LayerRecord:
        """Wait for a layer that is due, and claim it.

        Raises
        ------
        JournalError
            The journal failed.
        """
        while True:
            await self._gate.passed()
            self._announced.clear()
            self._ready.expect()
            record = await self._journal.claim(busy=self._flights.digests)
            if record is not None and self._flights.take([record.digest]):
                return record
            self._ready.give_up()
            if record is not None:
                # An image has taken it meanwhile; when that has ended, this one is looked at again.
                await self._journal.give_back([record.digest])
                continue
            due = await self._journal.next_due(busy=self._flights.digests)
            pause = None if due is None else max(0, due - time.time()) + _TICK
            try:
                async with asyncio.timeout(pause):
                    await self._announced.wait()
            except TimeoutError:
                continue
