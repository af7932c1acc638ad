"""What follows from a failure: refused for good, or tried again, when, and in what company."""

import time
from collections.abc import Iterable, Sequence
from typing import Final

import structlog

from services.common.digest import Digest
from services.common.object_store.errors import (
    ChecksumMismatchError,
    ObjectConflictError,
    ObjectMissingError,
    ObjectStoreError,
    ObjectTooLargeError,
)
from services.publisher.errors import LayerNotThereError
from services.publisher.journal.image_model import ImageRecord
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerRecord
from services.publisher.metrics import Metrics
from services.publisher.pipeline.images.verdict import Verdict, judge, text_of
from services.publisher.pipeline.units import ReadyLayer, Unit
from services.repository.errors import LayerRefusedError, RepositoryError, TransactionLeftOpenError

__all__ = ["Failures", "RetryTimes"]

_log = structlog.get_logger(__name__)

_UPLOAD_PAUSE: Final = 0.05
"""Seconds before an object that is not there is looked for again: its event may come before its upload has ended."""
_UPLOAD_ATTEMPTS: Final = 12
"""Attempts after which an object that is not there counts as never uploaded; some three minutes."""
_ALONE_ATTEMPTS: Final = 10
"""Attempts after which a layer counts as at fault that fails alone while others are published; some twenty minutes."""


class RetryTimes:
    """When failed layers are tried again: a pause that doubles up to a bound.

    Parameters
    ----------
    first
        The first pause, in seconds.
    last
        The longest, in seconds.
    """

    def __init__(self, *, first: float, last: float) -> None:
        self._first = first
        self._last = last

    def pause(self, attempts: int, *, first: float | None = None) -> float:
        """Seconds to wait after a failure that `attempts` others went before."""
        return min((first or self._first) * 2.0 ** min(attempts, 40), self._last)


class Failures:
    """Records failures in the journal, the log and the metrics.

    Parameters
    ----------
    refused_images
        Seconds after which a refused image is looked at once more; 0 for never.
    """

    def __init__(self, *, journal: Journal, metrics: Metrics, times: RetryTimes, refused_images: float) -> None:
        self._journal = journal
        self._metrics = metrics
        self._times = times
        self._refused_images = refused_images
        self._failing: dict[str, bool] = {}
        """Layers and images that the repository has failed with, and whether others have been published since."""

    def none_of(self, subjects: Iterable[str]) -> None:
        """Take note that layers or images have been published: the repository works."""
        for subject in subjects:
            self._failing.pop(subject, None)
        self._failing = dict.fromkeys(self._failing, True)

    async def of_layer(self, record: LayerRecord, error: Exception) -> None:
        """Record that a layer failed by itself."""
        digest, reason = record.digest, text_of(error)
        match error:
            case LayerRefusedError(kind="other_repository"):
                await self._refuse(digest, reason, kind=error.kind, elsewhere=True)
            case LayerRefusedError():
                await self._refuse(digest, reason, kind=error.kind)
            case ChecksumMismatchError() | ObjectConflictError() | ObjectTooLargeError():
                await self._refuse(digest, reason, kind="object")
            case LayerNotThereError() | ObjectMissingError() if record.attempts >= _UPLOAD_ATTEMPTS:
                await self._refuse(digest, reason, kind="not_there")
            case LayerNotThereError() | ObjectMissingError():
                await self._retry(record, reason, kind="not_there", first=_UPLOAD_PAUSE)
            case ObjectStoreError():
                await self._retry(record, reason, kind="store")
            case RepositoryError() if self.is_at_fault(digest, record.attempts, error):
                text = f"failed {record.attempts + 1} times while others were published, at last since {reason}"
                await self._refuse(digest, text, kind="alone")
            case RepositoryError():
                await self._retry(record, reason, kind="repository")
            case OSError():
                await self._retry(record, f"the spool failed: {reason}", kind="spool")
            case _:
                # A defect of the publisher must not stop it: the other layers may be fine.
                _log.error("layer failed unexpectedly", digest=digest, exc_info=error)
                await self._retry(record, f"unexpected: {type(error).__name__}: {reason}", kind="unexpected")

    def is_at_fault(self, subject: str, attempts: int, error: RepositoryError) -> bool:
        """Tell whether it must be the layer or image that makes the repository fail: each attempt costs a transaction.

        Parameters
        ----------
        subject
            The layer's digest or the image's name.
        attempts
            How often it has failed before.
        """
        if isinstance(error, TransactionLeftOpenError) or attempts + 1 < _ALONE_ATTEMPTS:
            self._failing.setdefault(subject, False)
            return False
        return self._failing.pop(subject, False)

    async def of_batch(self, units: Sequence[Unit], error: Exception) -> None:
        """Record that a transaction failed, for all that is known by any of its units."""
        if len(units) == 1:
            await self.of_unit(units[0], error)
            return
        share = (len(units) + 1) // 2
        layers = [unit.record.digest for unit in units if isinstance(unit, ReadyLayer)]
        images = [unit.record for unit in units if not isinstance(unit, ReadyLayer)]
        due = time.time() + self._times.pause(0)
        reason = text_of(error)
        _log.warning(
            "batch failed, trying again in smaller ones",
            layers=len(layers),
            images=len(images),
            share=share,
            reason=reason,
            exc_info=None if isinstance(error, RepositoryError) else error,
        )
        self._metrics.failures.labels("batch").inc()
        await self._journal.failed_together(layers, reason, due=due, share=share)
        await self._journal.images.failed_together(images, reason, due=due, share=share)

    async def of_unit(self, unit: Unit, error: Exception) -> None:
        """Record that a unit failed by itself."""
        if isinstance(unit, ReadyLayer):
            await self.of_layer(unit.record, error)
        else:
            await self.of_image(unit.record, error)

    async def of_image(self, record: ImageRecord, error: Exception) -> None:
        """Record that an image failed by itself."""
        verdict = judge(record, error)
        if isinstance(error, RepositoryError) and self.is_at_fault(record.name, record.attempts, error):
            reason = f"failed {record.attempts + 1} times while others were published, at last since {verdict.reason}"
            verdict = Verdict(kind="alone", reason=reason, final=True)
        self._metrics.failures.labels(verdict.kind).inc()
        self._metrics.image_failures.labels(record.name.registry, verdict.kind).inc()
        log = _log.bind(image=record.name, reason=verdict.reason)
        if verdict.kind == "unexpected":
            log.error("image failed unexpectedly", exc_info=error)
        if verdict.final:
            log.error("image refused")
            due = time.time() + self._refused_images if self._refused_images else None
            await self._journal.images.refused(record, verdict.reason, due=due)
        else:
            pause = max(self._times.pause(record.attempts), verdict.pause)
            log.warning("image failed, trying again", seconds=pause)
            await self._journal.images.failed(record, verdict.reason, due=time.time() + pause)

    async def _refuse(self, digest: Digest, reason: str, *, kind: str, elsewhere: bool = False) -> None:
        self._failing.pop(digest, None)
        if not await self._journal.refused(digest, reason, elsewhere=elsewhere):
            _log.warning("layer is another publisher's by now", digest=digest, reason=reason)
            return
        _log.error("layer refused", digest=digest, reason=reason)
        self._metrics.failures.labels(kind).inc()

    async def _retry(self, record: LayerRecord, reason: str, *, kind: str, first: float | None = None) -> None:
        pause = self._times.pause(record.attempts, first=first)
        if not await self._journal.failed(record.digest, reason, due=time.time() + pause):
            _log.warning("layer is another publisher's by now", digest=record.digest, reason=reason)
            return
        _log.warning("layer failed, trying again", digest=record.digest, reason=reason, seconds=pause)
        self._metrics.failures.labels(kind).inc()
