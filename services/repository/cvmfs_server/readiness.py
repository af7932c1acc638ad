"""Whether a repository can be published to, for whoever watches it."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeVar

from services.common.threads import in_thread
from services.repository.cvmfs_server.branch import Branch
from services.repository.cvmfs_server.place import Place
from services.repository.cvmfs_server.publishing_lock import PublishingLock
from services.repository.errors import RepositoryError

__all__ = ["Readiness"]

_Result = TypeVar("_Result")

_REMOUNT: Final = 5
"""Seconds that nothing may be mounted for at the end of a publish."""
_REMOUNT_LOOK: Final = 0.1
"""Seconds between two looks meanwhile."""


class Readiness:
    """What is known of one repository's readiness.

    Parameters
    ----------
    place
        Where it is.
    branch
        Its mounts.
    lock
        Its publishing lock.
    threads
        Where blocking work runs.
    """

    def __init__(self, *, place: Place, branch: Branch, lock: PublishingLock, threads: Executor) -> None:
        self._place = place
        self._branch = branch
        self._lock = lock
        self._threads = threads
        self.obstacle: str | None = None
        """Why nothing can be published until somebody, who may be the publisher, has mended it."""

    async def check(self, *, at_work: Callable[[], bool]) -> None:
        """Make sure that the repository is there, and that nothing keeps it from being published to.

        Parameters
        ----------
        at_work
            Tells whether the publisher has a program at work, which may unmount everything for a moment. Where a
            transaction is open, another publisher's may be.

        Raises
        ------
        RepositoryError
            Something does.
        """
        try:
            await self._blocking(self._probe)
            mounted = await self._mounted(at_work)
        except OSError as error:
            raise RepositoryError(f"repository {self._place.name} is not mounted: {error}") from error
        if self._branch.held is not None:
            raise RepositoryError(self._branch.held)
        if not mounted:
            raise RepositoryError(f"repository {self._place.name} is not mounted at {self._place.area}")
        if clients := await self._blocking(self._lock.inherited_by):
            raise RepositoryError(
                f"{self._place.publishing_lock} is held by the CVMFS client {', '.join(map(str, clients))} only: "
                "a publish was killed"
            )
        if self.obstacle is not None:
            raise RepositoryError(self.obstacle)

    def _probe(self) -> None:
        # Unlike the attributes of a file, this is in no cache of the kernel's. A directory must not be opened: a
        # publish that finds one open waits for a minute before it remounts.
        os.statvfs(self._place.published)
        os.statvfs(self._place.area)

    async def _mounted(self, at_work: Callable[[], bool]) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REMOUNT):
                while not await self._blocking(self._branch.mounted):
                    if not at_work() and not await self._blocking(self._place.flag.exists):
                        return await self._blocking(self._branch.mounted)
                    await asyncio.sleep(_REMOUNT_LOOK)
                return True
        return False

    async def _blocking(self, work: Callable[[], _Result]) -> _Result:
        return await in_thread(self._threads, lambda _stop: work())
