"""Runs checks, one at a time: every so often, and when somebody asks for one."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog

from services.common.errors import SuiteError
from services.publisher.consistency.check import CheckProgress, ConsistencyCheck
from services.publisher.consistency.model import ADVICE, CheckOutcome, Finding
from services.publisher.metrics import Metrics

__all__ = ["Checks"]

_log = structlog.get_logger(__name__)


class Checks:
    """Runs checks, and remembers what the last one of this process has come to.

    Parameters
    ----------
    interval
        Seconds between the end of a check and the start of the next one; 0 for none but those that are asked for.
    """

    def __init__(self, *, check: ConsistencyCheck, metrics: Metrics, interval: float) -> None:
        self.last: CheckOutcome | None = None
        """The last one that came to its end; None if there was none since the start."""
        self.turn = asyncio.Lock()
        """Held by whoever checks."""
        self._check = check
        self._metrics = metrics
        self._interval = interval

    async def check(self, progress: CheckProgress) -> AsyncGenerator[Finding, None]:
        """Compare everything, and give what is found while it goes on; only for whoever has the turn.

        Parameters
        ----------
        progress
            Told how far it is.

        Raises
        ------
        JournalError, ObjectStoreError, RepositoryError
            One of the three could not be read.
        """
        try:
            async with aclosing(self._check.run(progress)) as findings:
                async for finding in findings:
                    yield finding
        except SuiteError as error:
            self._end(progress, error)
            raise
        self._end(progress, None)

    async def run(self) -> None:
        """Check every so often until cancelled; a check that fails is made again the next time."""
        while self._interval:
            await asyncio.sleep(self._interval)
            progress = CheckProgress()
            try:
                async with self.turn, aclosing(self.check(progress)) as findings:
                    async for _ in findings:
                        pass  # they are counted; whoever wants to know which they are asks for a check
            except SuiteError as error:
                _log.warning("the check could not be finished", reason=str(error), seconds=self._interval)
            else:
                _log.info("checked", layers=progress.layers, images=progress.images, found=dict(progress.found))

    def _end(self, progress: CheckProgress, error: SuiteError | None) -> None:
        harmful = sum(count for kind, count in progress.found.items() if not ADVICE[kind].harmless)
        self.last = CheckOutcome(
            ended_at=time.time(),
            layers=progress.layers,
            images=progress.images,
            disagreements=harmful,
            error=None if error is None else str(error),
        )
        if error is None:
            self._metrics.checked_at.set(self.last.ended_at)
            self._metrics.disagreements.set(harmful)
