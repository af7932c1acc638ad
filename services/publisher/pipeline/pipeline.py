"""The publisher's work: fetch and prepare what is announced, and publish what is ready at the same time."""

import asyncio
import time
from collections.abc import Sequence

import structlog

from services.publisher.errors import JournalError
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerRecord
from services.publisher.metrics import Metrics
from services.publisher.pipeline.batches import BatchPublisher
from services.publisher.pipeline.failures import Failures, RetryTimes
from services.publisher.pipeline.fetcher import Fetcher
from services.publisher.pipeline.gate import Gate
from services.publisher.pipeline.ready import ReadyLayer, ReadyQueue
from services.publisher.pipeline.spool import Spool
from services.repository.errors import ForeignTransactionError, NoTransactionError, RepositoryError
from services.repository.interface import Publication, Repository

__all__ = ["Pipeline"]

_log = structlog.get_logger(__name__)

_GLANCE = 1
"""Seconds between two looks whether what keeps a transaction from being opened has gone."""
_TICK = 0.001
"""Seconds that a wait for a due layer is longer than needed, so that it never ends a moment too early."""


class Pipeline:
    """Two loops: one fetches, verifies and prepares layers, the other publishes them in batches.

    Parameters
    ----------
    concurrency
        Layers that are fetched and prepared at the same time.
    ahead
        Layers that may be between claimed and published.
    times
        Pauses while the repository cannot be used.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        spool: Spool,
        repository: Repository,
        fetcher: Fetcher,
        ready: ReadyQueue,
        batches: BatchPublisher,
        failures: Failures,
        gate: Gate,
        metrics: Metrics,
        times: RetryTimes,
        concurrency: int,
        ahead: int,
    ) -> None:
        self._journal = journal
        self._spool = spool
        self._repository = repository
        self._fetcher = fetcher
        self._ready = ready
        self._batches = batches
        self._failures = failures
        self._gate = gate
        self._metrics = metrics
        self._times = times
        self._workers = asyncio.Semaphore(concurrency)
        self._ahead = asyncio.Semaphore(ahead)
        self._announced = asyncio.Event()
        self.obstacle: str | None = "the repository has not been recovered yet"
        """Why nothing is being published at the moment; nothing if it is."""

    def wake(self) -> None:
        """Look at the journal: there is something new in it, or something is due at another time."""
        self._announced.set()

    async def run(self) -> None:
        """Work until cancelled.

        Raises
        ------
        JournalError
            The journal failed, so nothing can be done safely any more.
        """
        await self._gate.load()
        self._spool.clean(keep=await self._journal.interrupted())
        await self._recover()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._fetch())
            group.create_task(self._publish())

    async def _recover(self) -> None:
        attempts = 0
        while True:
            try:
                await self._repository.recover(await self._journal.transactions())
            except RepositoryError as error:
                self.obstacle = str(error)
                pause = self._times.pause(attempts)
                _log.error("repository cannot be recovered, trying again", reason=str(error), seconds=pause)
                attempts += 1
                await asyncio.sleep(pause)
            else:
                await self._journal.none_open()
                self.obstacle = None
                return

    async def _fetch(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                await self._ahead.acquire()
                await self._workers.acquire()
                group.create_task(self._bring(await self._next()))

    async def _next(self) -> LayerRecord:
        while True:
            await self._gate.passed()
            self._announced.clear()
            self._ready.expect()
            record = await self._journal.claim()
            if record is not None:
                return record
            self._ready.give_up()
            due = await self._journal.next_due()
            pause = None if due is None else max(0, due - time.time()) + _TICK
            try:
                async with asyncio.timeout(pause):
                    await self._announced.wait()
            except TimeoutError:
                continue

    async def _bring(self, record: LayerRecord) -> None:
        started = time.monotonic()
        try:
            result = await self._fetcher.bring(record.digest)
        except JournalError:
            raise
        except Exception as error:  # noqa: BLE001 - one layer's failure, whatever it is, stays its own
            await self._failures.of_layer(record, error)
            self._ready.give_up()
            self._ahead.release()
            self.wake()
        else:
            if isinstance(result, Publication):
                await self._journal.published([record.digest], result.revision)
                self._ready.give_up()
                self._ahead.release()
            else:
                self._metrics.prepare_seconds.observe(time.monotonic() - started)
                self._ready.put(ReadyLayer(record, result))
        finally:
            self._workers.release()

    async def _publish(self) -> None:
        waited = 0
        since = time.monotonic()
        while True:
            batch = await self._ready.take()
            if not self._gate.is_open:
                self._ready.put_back(batch)
                await self._gate.passed()
                continue
            try:
                await self._batches.publish(batch, self._join)
            except NoTransactionError as error:
                since = since if waited else time.monotonic()
                self._ready.put_back(batch)
                await self._wait_for_transaction(error, waited, since)
                waited += 1
            else:
                waited = 0
                self.obstacle = None
                self._metrics.foreign_transaction_seconds.set(0)
                await self._settle(batch)

    async def _join(self, batch: Sequence[ReadyLayer], patience: float) -> list[ReadyLayer]:
        """Take what may join an open transaction; while publishing is paused nothing may."""
        return await self._ready.join(batch, patience=patience) if self._gate.is_open else []

    async def _wait_for_transaction(self, error: NoTransactionError, waited: int, since: float) -> None:
        self.obstacle = str(error)
        pause = self._times.pause(waited)
        seconds = time.monotonic() - since
        if isinstance(error, ForeignTransactionError):
            self._metrics.foreign_transaction_seconds.set(seconds)
        else:
            self._metrics.failures.labels("transaction").inc()
        _log.warning("no transaction can be opened", reason=str(error), waited=round(seconds, 1), seconds=pause)
        until = time.monotonic() + pause
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(left if error.is_over is None else min(left, _GLANCE))
            if error.is_over is not None and await error.is_over():
                return

    async def _settle(self, batch: list[ReadyLayer]) -> None:
        """Drop what was held for layers that have been published or have failed."""
        for layer in batch:
            await self._repository.discard(layer.prepared)
            await self._spool.release(layer.digest, layer.prepared.layer.size)
            self._ahead.release()
        self.wake()
