"""The publisher's work: fetch and prepare what is announced, and publish what is ready at the same time."""

import asyncio

import structlog

from services.publisher.journal.journal import Journal
from services.publisher.pipeline.gate import Gate
from services.publisher.pipeline.obstacle import Obstacle
from services.publisher.pipeline.preparation import Preparation
from services.publisher.pipeline.publishing import Publishing
from services.publisher.pipeline.spool import Spool
from services.repository.errors import RepositoryError
from services.repository.interface import Repository

__all__ = ["Pipeline"]

_log = structlog.get_logger(__name__)


class Pipeline:
    """Two loops, once it is known what an earlier publisher left: one prepares layers, the other publishes them."""

    def __init__(
        self,
        *,
        journal: Journal,
        gate: Gate,
        spool: Spool,
        repository: Repository,
        obstacle: Obstacle,
        preparation: Preparation,
        publishing: Publishing,
    ) -> None:
        self._journal = journal
        self._gate = gate
        self._spool = spool
        self._repository = repository
        self._obstacle = obstacle
        self._preparation = preparation
        self._publishing = publishing

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
            await self._spool.clean(keep=await self._journal.interrupted())
            await self._recover()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._preparation.run())
                group.create_task(self._publishing.run())

    async def _recover(self) -> None:
        while True:
            try:
                await self._repository.recover(await self._journal.transactions())
            except RepositoryError as error:
                pause = self._obstacle.met(error)
                _log.error("repository cannot be recovered, trying again", reason=str(error), seconds=pause)
                await asyncio.sleep(pause)
            else:
                await self._journal.none_open()
                self._obstacle.gone()
                return
