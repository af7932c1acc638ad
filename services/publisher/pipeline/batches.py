"""One transaction: a batch of prepared layers becomes a revision of the repository."""

import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from services.publisher.errors import JournalError
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerState
from services.publisher.metrics import Metrics
from services.publisher.pipeline.failures import Failures
from services.publisher.pipeline.progress import Progress, Stage, TransactionProgress
from services.publisher.pipeline.ready import ReadyLayer
from services.repository.errors import (
    LayerAdditionError,
    LayerRefusedError,
    NoTransactionError,
    TransactionLeftOpenError,
)
from services.repository.interface import Repository, Transaction

__all__ = ["BatchPublisher"]

_log = structlog.get_logger(__name__)

_LINGER: Final = 0.3
"""Seconds that an open transaction waits at least for one layer that is on its way."""
_OPEN: Final = 10
"""Seconds in which it waits for any, once it holds what it was opened for."""

Join = Callable[[Sequence[ReadyLayer], float], Awaitable[list[ReadyLayer]]]


class BatchPublisher:
    """Publishes batches and records what became of each layer."""

    def __init__(
        self, *, journal: Journal, repository: Repository, failures: Failures, metrics: Metrics, progress: Progress
    ) -> None:
        self._journal = journal
        self._repository = repository
        self._failures = failures
        self._metrics = metrics
        self._progress = progress

    async def publish(self, batch: list[ReadyLayer], join: Join) -> None:
        """Publish a batch; layers that fail are recorded as failed.

        The transaction is opened at once. What gets ready while it is open goes with the batch, and what is on its way
        is waited for as long as the opening took: a further transaction would take longer.

        Parameters
        ----------
        batch
            The layers; those that join are added to it.
        join
            Takes what may join a batch; waits, for so many seconds, for what is on its way.

        Raises
        ------
        NoTransactionError
            Nothing has been done, since no transaction could be opened; the batch can be tried again as it is.
        JournalError
            The journal failed.
        """
        transaction = TransactionProgress(
            digests=tuple(layer.digest for layer in batch), size=sum(layer.size for layer in batch)
        )
        self._progress.transaction = transaction
        try:
            await self._publish(batch, join, transaction)
        finally:
            self._progress.transaction = None

    async def _publish(self, batch: list[ReadyLayer], join: Join, progress: TransactionProgress) -> None:
        started = time.monotonic()
        token = secrets.token_hex(16)
        await self._journal.begin(token)
        await self._journal.advance([layer.digest for layer in batch], LayerState.PUBLISHING)
        added: list[ReadyLayer] = []
        revision = None
        begun = time.monotonic()
        try:
            async with self._repository.transaction(token) as transaction:
                patience = max(_LINGER, time.monotonic() - begun)
                progress.stage = Stage.ADDING
                await self._add(batch, transaction, progress, added)
                until = time.monotonic() + _OPEN
                while joined := await join(batch, max(0, min(patience, until - time.monotonic()))):
                    await self._journal.advance([layer.digest for layer in joined], LayerState.PUBLISHING)
                    batch += joined
                    progress.join([layer.digest for layer in joined], sum(layer.size for layer in joined))
                    await self._add(joined, transaction, progress, added)
                if added:
                    progress.stage = Stage.PUBLISHING
                    revision = await transaction.publish()
        except NoTransactionError:
            await self._journal.advance([layer.digest for layer in batch], LayerState.VERIFIED)
            raise  # the journal keeps the token: what was left open of the attempt is aborted by the next one
        except TransactionLeftOpenError as error:
            await self._failures.of_batch([layer.record for layer in added or batch], error)
            return  # the journal keeps the token here as well
        except JournalError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the layers are tried again
            await self._failures.of_batch([layer.record for layer in added or batch], error)
        else:
            await self._succeeded(added, revision, time.monotonic() - started)
        await self._journal.none_open()

    async def _add(
        self,
        batch: list[ReadyLayer],
        transaction: Transaction,
        progress: TransactionProgress,
        added: list[ReadyLayer],
    ) -> None:
        """Add layers; one that fails is recorded as failed and left out."""
        for layer in batch:
            try:
                await transaction.add(layer.prepared)
            except (LayerAdditionError, LayerRefusedError) as error:
                await self._failures.of_layer(layer.record, error)
            else:
                added.append(layer)
            progress.added += 1

    async def _succeeded(self, layers: list[ReadyLayer], revision: int | None, seconds: float) -> None:
        if not layers:
            return
        await self._journal.published(
            [layer.digest for layer in layers],
            revision,
            tree_sizes={layer.digest: layer.size for layer in layers},
            notes={layer.digest: layer.prepared.sidecar.notes for layer in layers},
        )
        self._failures.none_of(layer.digest for layer in layers)
        if any(layer.record.share for layer in layers):
            await self._journal.widen()
        size = sum(layer.size for layer in layers)
        self._metrics.publish_seconds.observe(seconds)
        self._metrics.batch_layers.observe(len(layers))
        self._metrics.published_bytes.inc(size)
        _log.info(
            "published",
            revision=revision,
            layers=[layer.digest for layer in layers],
            bytes=size,
            seconds=round(seconds, 3),
        )
