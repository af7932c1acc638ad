"""The part of a publisher among those that work with its journal: a lease, renewed for as long as it works."""

import asyncio
import time
from types import TracebackType
from typing import Final, Self

import structlog

from services.publisher.errors import JournalError, LeaseLostError
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import Pause
from services.publisher.journal.publishers import LEASE
from services.publisher.pipeline.gate import Gate

__all__ = ["Membership"]

_log = structlog.get_logger(__name__)

_OFTEN: Final = 1.0
"""Most seconds between two renewals where others write into the journal as well: each tells what they have done."""


class Membership:
    """Enters the journal for as long as the context is open, and leaves it with all that this publisher has claimed.

    Parameters
    ----------
    gate
        Told of pauses.
    name, address
        As in `PublisherRecord`.
    lease
        Seconds after which others count this publisher as gone if it does not renew its lease.
    """

    def __init__(
        self, *, journal: Journal, gate: Gate, name: str, address: str | None = None, lease: float = LEASE
    ) -> None:
        self.leads = False
        """Whether this publisher does what one does for all; told to the others with the next renewal."""
        self.abandoned = asyncio.Event()
        """Set when others have gone that may have left something; whoever takes it over clears it."""
        self._journal = journal
        self._gate = gate
        self._name = name
        self._address = address
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
        await self._journal.publishers.enter(name=self._name, address=self._address, lease=self._lease)
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
        try:
            await self._journal.publishers.leave()
        except JournalError as failure:
            if error is None:
                raise
            # Whatever ended this publisher may have been the journal: others wait for the end of the lease then.
            _log.warning("publisher could not leave", reason=str(failure))

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
                # Whoever was stopped for longer than that finds out by one attempt what others think of it.
                async with asyncio.timeout(max(left, self._pause)):
                    await self._gate.follow(self._renew)
            except LeaseLostError:
                raise
            except (JournalError, TimeoutError) as error:
                if time.monotonic() + self._pause < self._renewed + self._lease:
                    _log.warning("lease could not be renewed, trying again", reason=str(error))
                    continue
                raise JournalError(
                    f"this publisher could not renew its lease of {self._lease:g} s, so others go on with its work: "
                    f"start it again once the journal's database can be used ({error or 'no answer'})"
                ) from error
            self._renewed = began

    async def _renew(self) -> Pause | None:
        renewal = await self._journal.publishers.renew(leads=self.leads, lease=self._lease)
        if renewal.abandoned:
            self.abandoned.set()
        return renewal.pause
