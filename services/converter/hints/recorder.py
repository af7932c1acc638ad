"""Hints are recorded in the time that their senders wait, or these are told to come again.

A disk can take seconds, and senders give up after some of them without saying so. What is not on the disk in time may
get there yet, and is the same hint when it comes again.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from services.converter.hints.errors import HintJournalError, JournalSlowError
from services.converter.hints.model import Event, Recorded

__all__ = ["PromptRecorder", "Recorder"]

_log = structlog.get_logger(__name__)


class Recorder(Protocol):
    """Records events, as `HintJournal`."""

    async def record(self, endpoint: str, events: Sequence[Event]) -> Recorded:
        """Record events: all of them are on the disk when this returns, or none is recorded."""


class PromptRecorder:
    """Records hints, and waits no longer than it should.

    Parameters
    ----------
    journal
        Where they are recorded; it is closed after this has been used, and finishes what has been begun.
    patience
        Seconds that recording may take.
    """

    def __init__(self, journal: Recorder, *, patience: float) -> None:
        self._journal = journal
        self._patience = patience
        self._late = set[asyncio.Task[Recorded]]()

    async def record(self, endpoint: str, events: Sequence[Event]) -> Recorded:
        """Record events, as `Recorder.record`.

        Raises
        ------
        JournalSlowError
            They are not on the disk in time. None is begun with while others are late, so that no queue builds up.
        HintJournalError
            As `Recorder.record`.
        """
        if self._late:
            raise JournalSlowError("the disk of the journal of hints is too slow: send this again later")
        recording = asyncio.create_task(self._journal.record(endpoint, events))
        try:
            await asyncio.wait((recording,), timeout=self._patience)
        finally:
            if not recording.done():
                self._late.add(recording)
                recording.add_done_callback(self._ended)
        if not recording.done():
            raise JournalSlowError(
                f"the hints are not on the disk after {self._patience:g} s, and may get there yet: send this again"
            )
        return recording.result()

    def _ended(self, recording: asyncio.Task[Recorded]) -> None:
        self._late.remove(recording)
        if not recording.cancelled() and (error := recording.exception()) is not None:
            if not isinstance(error, HintJournalError):
                raise error  # a defect, which the event loop reports
            _log.error("hints whose sender was told to come again could not be recorded", reason=str(error))
