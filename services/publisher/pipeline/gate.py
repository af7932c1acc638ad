"""Pausing: an operator keeps anything new from being published, also across restarts."""

import asyncio

import structlog

from services.publisher.journal.journal import Journal
from services.publisher.journal.model import Pause

__all__ = ["Gate"]

_log = structlog.get_logger(__name__)


class Gate:
    """What the pipeline passes before it begins anything; closed while publishing is paused.

    The journal holds the pause, this is what of it has to be known at once.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._open = asyncio.Event()
        self._open.set()
        self._pause: Pause | None = None
        self._changing = asyncio.Lock()

    @property
    def pause(self) -> Pause | None:
        """The pause in force."""
        return self._pause

    @property
    def is_open(self) -> bool:
        """Whether something new may be begun."""
        return self._open.is_set()

    async def load(self) -> None:
        """Take up what the journal says, where other publishers may have paused as well."""
        async with self._changing:  # or what was read before a pause would end it
            await self._load()

    async def _load(self) -> None:
        self._set(await self._journal.paused())

    async def close(self, reason: str) -> None:
        """Pause: it is on the disk, and no transaction is begun any more, when this returns.

        Parameters
        ----------
        reason
            What for, to be shown to everybody; may be empty.

        Raises
        ------
        JournalError
            The pause could not be recorded, so that there is none.
        """
        async with self._changing:
            before = self._pause
            self._open.clear()  # before the journal, so that nothing is begun while it is written
            try:
                await self._journal.pause(reason)
                await self._load()
            except BaseException:
                self._set(before)
                raise
        _log.warning("publishing is paused", reason=reason)

    async def resume(self) -> None:
        """End the pause, if there is one.

        Raises
        ------
        JournalError
            The end could not be recorded, so that the pause goes on.
        """
        async with self._changing:
            await self._journal.resume()
            await self._load()
        _log.warning("publishing is resumed")

    async def passed(self) -> None:
        """Wait until something new may be begun."""
        await self._open.wait()

    def _set(self, pause: Pause | None) -> None:
        self._pause = pause
        if pause is None:
            self._open.set()
        else:
            self._open.clear()
