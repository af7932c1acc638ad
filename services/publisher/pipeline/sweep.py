"""Finds layers that no notification announced: notifications make it quick, the sweep of the bucket makes it right."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from services.common.digest import Digest
from services.common.object_store.errors import ObjectStoreError
from services.common.object_store.store import ObjectStore
from services.publisher.journal.journal import Journal
from services.publisher.metrics import Metrics
from services.publisher.pipeline.claims import Claims
from services.publisher.pipeline.failures import RetryTimes
from services.publisher.pipeline.progress import Progress

__all__ = ["Sweep", "SweepTimes"]

_log = structlog.get_logger(__name__)

_PAGE: Final = 1000
"""Layers that are recorded at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepTimes:
    """When the bucket is swept."""

    interval: float
    """Seconds from the end of one sweep to the start of the next."""
    retry: RetryTimes
    """Pauses while the store cannot be listed."""
    upload_lifetime: timedelta
    """When an upload that is not completed counts as abandoned."""


class Sweep:
    """Sweeps the bucket when it is asked to, and every so often.

    Parameters
    ----------
    leads
        Tells whether this publisher sweeps by itself: one of several does.
    """

    def __init__(
        self,
        *,
        store: ObjectStore,
        journal: Journal,
        claims: Claims,
        metrics: Metrics,
        progress: Progress,
        times: SweepTimes,
        leads: Callable[[], bool],
    ) -> None:
        self._store = store
        self._journal = journal
        self._claims = claims
        self._metrics = metrics
        self._state = progress.sweep
        self._times = times
        self._leads = leads
        self._asked = asyncio.Event()

    def ask(self) -> int:
        """Let a sweep begin now; return its number, which is that of the last one when it has ended."""
        self._asked.set()
        return self._state.begun + 1

    async def begin(self) -> None:
        """Let the first sweep begin: this publisher leads from now on."""
        self.ask()

    async def run(self) -> None:
        """Sweep until cancelled; a store that fails is tried again."""
        failures = 0
        await self._asked.wait()
        while True:
            self._asked.clear()
            self._state.begin()
            try:
                found = await self.sweep()
            except ObjectStoreError as error:
                pause = min(self._times.retry.pause(failures), self._times.interval)
                failures += 1
                self._metrics.failures.labels("sweep").inc()
                self._state.end(error=str(error))
                _log.warning("sweep failed, trying again", reason=str(error), seconds=pause)
            else:
                pause, failures = self._times.interval, 0
                self._metrics.swept_at.set(time.time())
                self._state.end(found=found)
                _log.info("swept", found=found)
                await self._abort_abandoned_uploads()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause if self._leads() else None):
                    await self._asked.wait()

    async def _abort_abandoned_uploads(self) -> None:
        try:
            aborted = await self._store.abort_abandoned_uploads(self._times.upload_lifetime)
        except ObjectStoreError as error:
            # They cost space only; the next sweep tries again.
            self._metrics.failures.labels("abandoned uploads").inc()
            _log.warning("abandoned uploads are left in the bucket", reason=str(error))
        else:
            self._metrics.uploads_aborted.inc(aborted)

    async def sweep(self) -> int:
        """Record every layer in the bucket that the journal does not know; return how many there are to work on."""
        found = 0
        page: list[Digest] = []
        async for layer in self._store.list_layers():
            page.append(layer.digest)
            if len(page) == _PAGE:
                found += await self._announce(page)
                page.clear()
        return found + await self._announce(page)

    async def _announce(self, page: list[Digest]) -> int:
        found = await self._journal.announce_found(page) if page else 0
        if found:
            self._metrics.sweep_found.inc(found)
            self._claims.wake()
        return found
