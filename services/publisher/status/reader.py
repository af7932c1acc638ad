"""Puts the status together."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from services.common.repository_name import RepositoryName
from services.publisher.consistency.checks import Checks
from services.publisher.journal.journal import Journal
from services.publisher.pipeline.gate import Gate
from services.publisher.pipeline.progress import UNRECOVERED, Progress
from services.publisher.pipeline.spool import Spool
from services.publisher.status.model import DiskSpace, PublisherStatus
from services.publisher.status.publishers import Publishers, Standing

__all__ = ["StatusReader", "Trust"]


class Trust(Protocol):
    """Who looks for how long clients trust the repository."""

    @property
    def until(self) -> float | None:
        """When they stop to, in seconds since the epoch; None where that is not known."""


class StatusReader:
    """Puts the status together.

    Parameters
    ----------
    leads
        Tells whether this publisher leads.
    trust
        None where clients trust the repository for ever.
    directories
        Whose file systems are looked at, by name.
    """

    def __init__(
        self,
        *,
        repository: RepositoryName,
        journal: Journal,
        leads: Callable[[], bool],
        gate: Gate,
        progress: Progress,
        checks: Checks,
        trust: Trust | None,
        spool: Spool,
        directories: Mapping[str, Path],
    ) -> None:
        self._repository = repository
        self._journal = journal
        self._leads = leads
        self._gate = gate
        self._progress = progress
        self._checks = checks
        self._trust = trust
        self._spool = spool
        self._directories = directories

    async def read(self) -> PublisherStatus:
        """Return the status.

        Raises
        ------
        JournalError
            The journal failed.
        """
        summary = await self._journal.summary()
        leads = self._leads()
        # Of a journal that is a file, what came before can be nothing but this one's predecessors.
        known = await self._journal.publishers.list()
        publishers = Publishers([record for record in known if self._journal.shared or not record.gone])
        return PublisherStatus(
            now=time.time(),
            repository=self._repository,
            publishers=publishers,
            leads=leads,
            layers=summary,
            images=await self._journal.images.summary(),
            pause=self._gate.pause,
            obstacle=self._obstacle(publishers, leads=leads),
            transaction=self._progress.transaction,
            sweep=self._progress.sweep,
            check=self._checks.last,
            trusted_until=None if self._trust is None else self._trust.until,
            spool_used=self._spool.used,
            spool_limit=self._spool.limit,
            disks={name: _space(path) for name, path in self._directories.items()},
        )

    def _obstacle(self, publishers: Publishers, *, leads: bool) -> str | None:
        obstacle = self._progress.obstacle
        # One that stands by has nothing to recover while another one leads.
        stands_by = not leads and publishers.counts[Standing.LEADING] > 0
        return None if stands_by and obstacle == UNRECOVERED else obstacle


def _space(directory: Path) -> DiskSpace | None:
    try:
        found = os.statvfs(directory)
    except FileNotFoundError:
        return None
    return DiskSpace(free=found.f_bavail * found.f_frsize, total=found.f_blocks * found.f_frsize)
