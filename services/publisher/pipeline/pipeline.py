"""The publisher's work: fetch and prepare what is announced or asked for, and publish what is ready meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from services.publisher.journal.journal import Journal
from services.publisher.journal.publishers import Leavings
from services.publisher.pipeline.gate import Gate
from services.publisher.pipeline.images.preparation import ImagePreparation
from services.publisher.pipeline.obstacle import Obstacle
from services.publisher.pipeline.preparation import Preparation
from services.publisher.pipeline.publishing import Publishing
from services.publisher.pipeline.spool import Spool
from services.repository.errors import RepositoryError
from services.repository.interface import Repository

__all__ = ["Pipeline"]

_log = structlog.get_logger(__name__)

_LOOK: Final = 60.0
"""Seconds between two looks at whether archives in the spool are still wanted."""


class Pipeline:
    """Three loops, once it is known what an earlier publisher left: two prepare layers and images, one publishes.

    Parameters
    ----------
    recover_collection
        Finds out what an earlier publisher has collected; raises as the repository does.
    recovered
        Set when it is known what that publisher has left.
    abandoned
        Set when another publisher has gone that may have left something.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        gate: Gate,
        spool: Spool,
        repository: Repository,
        obstacle: Obstacle,
        preparation: Preparation,
        images: ImagePreparation,
        publishing: Publishing,
        recover_collection: Callable[[], Awaitable[None]],
        recovered: asyncio.Event,
        abandoned: asyncio.Event,
    ) -> None:
        self._journal = journal
        self._gate = gate
        self._spool = spool
        self._repository = repository
        self._obstacle = obstacle
        self._preparation = preparation
        self._images = images
        self._publishing = publishing
        self._recover_collection = recover_collection
        self._recovered = recovered
        self._abandoned = abandoned

    async def run(self) -> None:
        """Work until cancelled.

        Raises
        ------
        JournalError
            The journal failed, so nothing can be done safely any more.
        LockError
            Another publisher has the spool.
        """
        await self._gate.load()
        with self._spool.taken():
            leavings = await self._journal.publishers.take_over()
            await self._until_readable(lambda: self._recover(leavings))
            self._recovered.set()
            # Only now it is known which images an earlier publisher has published.
            await self._spool.clean(keep=[*leavings.verified, *await self._journal.versions.unfinished()])
            async with asyncio.TaskGroup() as group:
                group.create_task(self._drop_left())
                group.create_task(self._take_over())
                group.create_task(self._preparation.run())
                group.create_task(self._images.run())
                group.create_task(self._publishing.run())

    async def _drop_left(self) -> None:
        """Remove what an earlier publisher has fetched, once something else is wanted instead."""
        while self._spool.has_left:
            await asyncio.sleep(_LOOK)
            layers = await self._journal.unfinished()
            await self._spool.drop_left(keep=[*layers, *await self._journal.versions.unfinished()])

    async def _take_over(self) -> None:
        """Take over what others leave that have gone, as soon as that is found."""
        while True:
            await self._abandoned.wait()
            self._abandoned.clear()
            leavings = await self._journal.publishers.take_over()
            await self._until_readable(lambda: self._images.recover(leavings.publishing))  # noqa: B023 - awaited here
            await self._until_readable(self._recover_collection)

    async def _recover(self, leavings: Leavings) -> None:
        await self._repository.recover(await self._journal.transactions())
        await self._recover_collection()
        await self._images.recover(leavings.publishing)
        await self._journal.none_open()

    async def _until_readable(self, recover: Callable[[], Awaitable[None]]) -> None:
        """Recover, again while the repository fails."""
        while True:
            try:
                await recover()
            except RepositoryError as error:
                pause = self._obstacle.met(error)
                _log.error("repository cannot be recovered, trying again", reason=str(error), seconds=pause)
                await asyncio.sleep(pause)
            else:
                self._obstacle.gone()
                return
