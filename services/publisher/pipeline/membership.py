"""The part of a publisher among those that work with its journal: a lease, renewed for as long as it works."""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import structlog

from services.publisher.errors import JournalError, LeaseLostError
from services.publisher.journal.journal import Journal
from services.publisher.journal.publishers import LEASE

__all__ = ["Membership"]

_log = structlog.get_logger(__name__)

_OFTEN: Final = 1.0
"""Most seconds between two renewals where there may be others: each tells whether one of them has gone."""
_ATTEMPT: Final = 5.0
"""Seconds that an attempt has at least: one that was stopped for longer than its lease learns what others did."""
_LEAVING: Final = 5.0
"""Most seconds that a publisher takes to leave which has failed: what has failed may be the way to the journal."""


class Membership:
    """Enters the journal for as long as the context is open, and leaves it with all that this publisher has claimed.

    Parameters
    ----------
    leads
        Tells whether this publisher does what one does for all.
    name
        As in `PublisherRecord`.
    lease
        Seconds after which others count this publisher as gone if it does not renew its lease.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        leads: Callable[[], bool],
        name: str,
        lease: float = LEASE,
    ) -> None:
        self.abandoned = asyncio.Event()
        """Set when others have gone that may have left something; whoever takes it over clears it."""
        self._journal = journal
        self._leads = leads
        self._name = name
        self._lease = lease
        self._pause = min(lease / 4, _OFTEN) if journal.shared else lease / 4
        self._renewed = 0.0

    async def __aenter__(self) -> Self:
        """Enter.

        Raises
        ------
        JournalError
            The journal failed.
        """
        self._renewed = time.monotonic()
        await self._journal.publishers.enter(name=self._name, lease=self._lease)
        _log.info("publisher has entered", publisher=self._journal.publisher, name=self._name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave, so that nobody has to wait for the end of the lease.

        Raises
        ------
        JournalError
            The journal failed.
        """
        if error is None:
            await self._journal.publishers.leave()
            return
        try:
            async with asyncio.timeout(_LEAVING):
                await self._journal.publishers.leave()
        except (JournalError, TimeoutError) as failure:
            _log.warning("publisher could not leave: others wait for the end of its lease", reason=str(failure))

    async def run(self) -> None:
        """Renew the lease until cancelled.

        Raises
        ------
        LeaseLostError
            Others count this publisher as gone.
        JournalError
            The lease has run out, since the journal could not be written.
        """
        while True:
            await asyncio.sleep(self._pause)
            began = time.monotonic()
            left = self._renewed + self._lease - began
            try:
                async with asyncio.timeout(max(left, _ATTEMPT)):
                    await self._renew()
            except LeaseLostError:
                raise
            except (JournalError, TimeoutError) as error:
                if time.monotonic() + self._pause < self._renewed + self._lease:
                    _log.warning("lease could not be renewed, trying again", reason=str(error))
                    continue
                raise JournalError(
                    f"this publisher could not renew its lease of {self._lease:g} s, so others go on with its work: "
                    f"start it again once the journal's database can be used ({str(error) or 'no answer'})"
                ) from error
            self._renewed = began

    async def _renew(self) -> None:
        renewal = await self._journal.publishers.renew(leads=self._leads(), lease=self._lease)
        if renewal.abandoned:
            self.abandoned.set()
