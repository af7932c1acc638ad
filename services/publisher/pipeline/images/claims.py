"""The images to work on, one after the other as they fall due, and how far those are that are worked on."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.publisher.journal.image_model import ImageRecord
from services.publisher.journal.images import ImageJournal
from services.publisher.pipeline.gate import Gate

__all__ = ["ImageClaims", "ImageWork", "LayerStep"]

_TICK: Final = 0.001
"""Seconds that a wait for a due image is longer than needed, so that it never ends a moment too early."""
_LOOK: Final = 1.0
"""Seconds between two looks at what others have asked for."""


class LayerStep(StrEnum):
    """How far a layer of an image is."""

    MISSING = "missing"
    FETCHING = "fetching"
    PREPARED = "prepared"
    PUBLISHED = "published"


@dataclass(slots=True, kw_only=True)
class ImageWork:
    """One image that is being worked on."""

    record: ImageRecord
    task: asyncio.Task[Any] | None = None
    """What works on it until it is ready."""
    steps: dict[Digest, LayerStep] = field(default_factory=dict)
    """Its layers, once it is known which the repository has."""
    fetched: int = 0
    """Bytes that have been fetched."""


class ImageClaims:
    """Claims images in the journal, while publishing is not paused.

    Parameters
    ----------
    places
        Images between their claim and the end of what became of them. One registry has at most half of them, so that
        one that does not answer leaves a way for the others.
    """

    def __init__(self, *, journal: ImageJournal, gate: Gate, places: int) -> None:
        self._journal = journal
        self._gate = gate
        self._places = asyncio.Semaphore(places)
        self._most = max(1, places // 2)
        self._works: dict[ImageName, ImageWork] = {}
        self._asked = asyncio.Event()
        self._released = set[ImageName]()

    def wake(self) -> None:
        """Look at the journal: there is something new in it, or something is due at another time."""
        self._asked.set()

    def superseded(self, record: ImageRecord) -> None:
        """Look at the journal, and give up what is being done for an earlier ask for an image."""
        work = self._works.get(record.name)
        if work is not None and work.record.ask < record.ask and work.task is not None:
            work.task.cancel()
            work.task = None  # so that nothing interrupts what it does then
        self.wake()

    def work(self, name: ImageName) -> ImageWork | None:
        """Return how far an image is that is being worked on."""
        return self._works.get(name)

    async def next(self) -> ImageWork:
        """Wait for an image that is due, and claim it; `done` ends that.

        Raises
        ------
        JournalError
            The journal failed.
        """
        await self._places.acquire()
        while True:
            await self._gate.passed()
            self._asked.clear()
            await self._release()
            full = self._full()
            record = await self._journal.claim(busy=self._works, full=full)
            if record is not None:
                work = self._works[record.name] = ImageWork(record=record)
                return work
            due = await self._journal.next_due(busy=self._works, full=full)
            pause = None if due is None else max(0, due - time.time()) + _TICK
            try:
                async with asyncio.timeout(pause):
                    await self._asked.wait()
            except TimeoutError:
                continue

    async def follow(self) -> None:
        """Give up what others have asked something else for, until cancelled.

        Raises
        ------
        JournalError
            The journal failed.
        """
        while True:
            await asyncio.sleep(_LOOK)
            for record in await self._journal.claimed(self._works) if self._works else ():
                self.superseded(record)

    async def _release(self) -> None:
        """Let go of the names of images that are not worked on any more."""
        if self._released:
            released, self._released = self._released, set()
            await self._journal.release(released)

    def done(self, names: Iterable[ImageName]) -> None:
        """Take note that images are not worked on any more."""
        for name in names:
            del self._works[name]
            self._released.add(name)
            self._places.release()
        self.wake()

    def _full(self) -> list[str]:
        counts = Counter(work.record.name.registry for work in self._works.values())
        return [registry for registry, count in counts.items() if count >= self._most]
