"""The second loop of the pipeline: publish what is ready, in batches."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import structlog

from services.publisher.metrics import Metrics
from services.publisher.pipeline.batches import BatchPublisher
from services.publisher.pipeline.gate import Gate
from services.publisher.pipeline.holdings import Holdings
from services.publisher.pipeline.obstacle import Obstacle
from services.publisher.pipeline.ready import ReadyQueue
from services.publisher.pipeline.units import Unit
from services.repository.errors import ForeignTransactionError, NoTransactionError

__all__ = ["Publishing"]

_log = structlog.get_logger(__name__)

_GLANCE: Final = 1
"""Seconds between two looks whether what keeps a transaction from being opened has gone."""


class Publishing:
    """Publishes one batch after the other; one whose transaction cannot be opened is tried again."""

    def __init__(
        self,
        *,
        ready: ReadyQueue,
        gate: Gate,
        batches: BatchPublisher,
        holdings: Holdings,
        obstacle: Obstacle,
        metrics: Metrics,
    ) -> None:
        self._ready = ready
        self._gate = gate
        self._batches = batches
        self._holdings = holdings
        self._obstacle = obstacle
        self._metrics = metrics

    async def run(self) -> None:
        """Publish batches until cancelled.

        Raises
        ------
        JournalError
            The journal failed.
        """
        while True:
            batch = await self._ready.take()
            if not self._gate.is_open:
                self._ready.put_back(batch)
                await self._gate.passed()
                continue
            try:
                await self._batches.publish(batch, self._join)
            except NoTransactionError as error:
                self._ready.put_back(batch)
                await self._wait_for_transaction(error)
            else:
                self._obstacle.gone()
                self._metrics.foreign_transaction_seconds.set(0)
                await self._holdings.drop(batch)

    async def _join(self, batch: Sequence[Unit], patience: float) -> list[Unit]:
        """Take what may join an open transaction; while publishing is paused nothing may."""
        return await self._ready.join(batch, patience=patience) if self._gate.is_open else []

    async def _wait_for_transaction(self, error: NoTransactionError) -> None:
        pause = self._obstacle.met(error)
        seconds = self._obstacle.seconds
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
