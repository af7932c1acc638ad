"""The first loop of the pipeline: fetch, verify and prepare what is announced."""

import asyncio
import time

import structlog

from services.publisher.errors import ClaimLostError, JournalError
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerRecord
from services.publisher.metrics import Metrics
from services.publisher.pipeline.claims import Claims
from services.publisher.pipeline.failures import Failures
from services.publisher.pipeline.fetcher import Fetcher
from services.publisher.pipeline.holdings import Holdings
from services.publisher.pipeline.ready import ReadyQueue
from services.publisher.pipeline.units import ReadyLayer
from services.publisher.pipeline.workers import Workers
from services.repository.interface import Publication

__all__ = ["Preparation"]

_log = structlog.get_logger(__name__)


class Preparation:
    """Brings layers to where a transaction can take them, several at a time.

    Parameters
    ----------
    workers
        Those that images have as well.
    concurrency
        Layers of the bucket that are fetched and prepared at the same time.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        claims: Claims,
        holdings: Holdings,
        fetcher: Fetcher,
        ready: ReadyQueue,
        failures: Failures,
        metrics: Metrics,
        workers: Workers,
        concurrency: int,
    ) -> None:
        self._journal = journal
        self._claims = claims
        self._holdings = holdings
        self._fetcher = fetcher
        self._ready = ready
        self._failures = failures
        self._metrics = metrics
        self._workers = workers
        self._turns = asyncio.Semaphore(concurrency)

    async def run(self) -> None:
        """Prepare layers until cancelled.

        Raises
        ------
        JournalError
            The journal failed.
        """
        async with asyncio.TaskGroup() as group:
            while True:
                await self._holdings.take_place()
                await self._turns.acquire()
                group.create_task(self._bring(await self._claims.next()))

    async def _bring(self, record: LayerRecord) -> None:
        started = time.monotonic()
        try:
            async with self._workers.one():
                result = await self._fetcher.bring(record.digest)
        except JournalError:
            raise
        except ClaimLostError as error:
            _log.warning("layer is dropped", digest=record.digest, reason=str(error))
            self._ready.give_up()
            self._holdings.free_place(record.digest)
        except Exception as error:  # noqa: BLE001 - one layer's failure, whatever it is, stays its own
            await self._failures.of_layer(record, error)
            self._ready.give_up()
            self._holdings.free_place(record.digest)
        else:
            if isinstance(result, Publication):
                await self._journal.published([record.digest], result.revision)
                self._ready.give_up()
                self._holdings.free_place(record.digest)
            else:
                self._metrics.prepare_seconds.observe(time.monotonic() - started)
                self._ready.put(ReadyLayer(record, result))
        finally:
            self._turns.release()
