"""One transaction: a batch of layers and images becomes a revision of the repository."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from services.publisher.errors import JournalError
from services.publisher.journal.journal import Journal
from services.publisher.pipeline.failures import Failures
from services.publisher.pipeline.images.documents import documents_of
from services.publisher.pipeline.outcomes import Added, Outcomes
from services.publisher.pipeline.presence import is_published, lost_layers, missing_layers
from services.publisher.pipeline.progress import Progress, Stage, TransactionProgress
from services.publisher.pipeline.units import ReadyImage, ReadyRemoval, Unit, digests_of, names_of, size_of
from services.repository.errors import (
    ImageAdditionError,
    LayerAdditionError,
    LayerRefusedError,
    NoTransactionError,
    TransactionLeftOpenError,
)
from services.repository.interface import PreparedLayer, Repository, Transaction

__all__ = ["BatchPublisher"]

_LINGER: Final = 0.3
"""Seconds that an open transaction waits at least for one layer that is on its way."""
_OPEN: Final = 10
"""Seconds in which it waits for any, once it holds what it was opened for."""

Join = Callable[[Sequence[Unit], float], Awaitable[list[Unit]]]


class BatchPublisher:
    """Publishes batches; what became of each unit is recorded.

    Parameters
    ----------
    turn
        Held by whoever has a transaction of the repository.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        repository: Repository,
        failures: Failures,
        outcomes: Outcomes,
        progress: Progress,
        turn: asyncio.Lock,
    ) -> None:
        self._journal = journal
        self._repository = repository
        self._failures = failures
        self._outcomes = outcomes
        self._progress = progress
        self._turn = turn

    async def publish(self, batch: list[Unit], join: Join) -> None:
        """Publish a batch; units that fail are recorded as failed, images that are wanted no more are left out.

        The transaction is opened at once. What gets ready while it is open goes with the batch, and what is on its way
        is waited for as long as the opening took: a further transaction would take longer.

        Parameters
        ----------
        batch
            The units; those that join are added to it.
        join
            Takes what may join a batch; waits, for so many seconds, for what is on its way.

        Raises
        ------
        NoTransactionError
            Nothing has been done, since no transaction could be opened; the batch can be tried again as it is.
        JournalError
            The journal failed.
        """
        async with self._turn:
            await self._publish(batch, join)

    async def _publish(self, batch: list[Unit], join: Join) -> None:
        started = time.monotonic()
        admitted = await self._outcomes.enter(batch)
        if not admitted:
            return
        progress = TransactionProgress(digests=digests_of(admitted), images=names_of(admitted), size=size_of(admitted))
        self._progress.transaction = progress
        token = secrets.token_hex(16)
        await self._journal.begin(token)
        added = Added()
        revision = None
        begun = time.monotonic()
        try:
            async with self._repository.transaction(token) as transaction:
                patience = max(_LINGER, time.monotonic() - begun)
                if self._journal.shared:
                    admitted = await self._outcomes.held(admitted)
                progress.stage = Stage.ADDING
                await self._add(admitted, transaction, progress, added)
                until = time.monotonic() + _OPEN
                while joined := await join(batch, max(0, min(patience, until - time.monotonic()))):
                    batch += joined
                    fresh = await self._outcomes.enter(joined)
                    admitted += fresh
                    progress.join(digests_of(fresh), names_of(fresh), size_of(fresh))
                    await self._add(fresh, transaction, progress, added)
                if added.units:
                    progress.stage = Stage.PUBLISHING
                    revision = await transaction.publish()
                    added.reports = transaction.reports()
        except NoTransactionError:
            await self._outcomes.leave(admitted)
            raise  # the journal keeps the token: what was left open of the attempt is aborted by the next one
        except TransactionLeftOpenError as error:
            await self._failures.of_batch(added.units or admitted, error)
            return  # the journal keeps the token here as well
        except JournalError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the units are tried again
            await self._failures.of_batch(added.units or admitted, error)
        else:
            await self._outcomes.published(added, revision, time.monotonic() - started)
        finally:
            self._progress.transaction = None
        await self._journal.none_open()

    async def _add(
        self, units: Sequence[Unit], transaction: Transaction, progress: TransactionProgress, added: Added
    ) -> None:
        """Add units; one that fails is recorded as failed, and what it brought already is of no use yet."""
        for unit in units:
            brought: list[PreparedLayer] = []
            missing = unit.layers
            if self._journal.shared:
                lost = await lost_layers(self._repository, unit)
                if lost:
                    error = LayerAdditionError(f"layers have been collected meanwhile: {', '.join(lost)}")
                    await self._failures.of_unit(unit, error)
                    continue
                missing = await missing_layers(self._repository, unit)
                if not missing and await is_published(self._repository, unit):
                    progress.added += len(unit.layers)
                    added.found.append(unit)
                    continue
            try:
                for prepared in missing:
                    await transaction.add(prepared)
                    brought.append(prepared)
                    progress.added += 1
                if isinstance(unit, ReadyImage):
                    await transaction.put_image(documents_of(unit.version, now=time.time()))
                elif isinstance(unit, ReadyRemoval):
                    await transaction.remove_image(unit.record.name)
            except (LayerAdditionError, LayerRefusedError, ImageAdditionError) as error:
                progress.added += len(unit.layers) - len(brought)
                added.strays += brought
                await self._failures.of_unit(unit, error)
            else:
                added.units.append(unit)
