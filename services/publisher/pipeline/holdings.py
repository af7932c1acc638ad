"""What a layer holds from its claim until it is published or has failed."""

import asyncio
from collections.abc import Iterable

from services.publisher.pipeline.claims import Claims
from services.publisher.pipeline.ready import ReadyLayer
from services.publisher.pipeline.spool import Spool
from services.repository.interface import Repository

__all__ = ["Holdings"]


class Holdings:
    """Gives layers their places, and takes back what they hold.

    Parameters
    ----------
    places
        Layers that may be between claimed and published.
    """

    def __init__(self, *, repository: Repository, spool: Spool, claims: Claims, places: int) -> None:
        self._repository = repository
        self._spool = spool
        self._claims = claims
        self._places = asyncio.Semaphore(places)

    async def take_place(self) -> None:
        """Wait for a place for one more layer, and take it."""
        await self._places.acquire()

    def free_place(self) -> None:
        """Give a place back whose layer holds nothing else."""
        self._places.release()

    async def drop(self, layers: Iterable[ReadyLayer]) -> None:
        """Drop what was held for layers that have been published or have failed."""
        for layer in layers:
            await self._repository.discard(layer.prepared)
            await self._spool.release(layer.digest, layer.prepared.layer.size)
            self._places.release()
        self._claims.wake()
