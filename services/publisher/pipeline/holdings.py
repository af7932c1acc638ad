"""What layers and images hold from their claim until they are published or have failed."""

import asyncio
from collections.abc import Iterable, Sequence

from services.common.digest import Digest
from services.publisher.pipeline.claims import Claims
from services.publisher.pipeline.flights import Flights
from services.publisher.pipeline.images.claims import ImageClaims
from services.publisher.pipeline.spool import Spool
from services.publisher.pipeline.units import ReadyLayer, Unit, digests_of, names_of
from services.repository.interface import Repository

__all__ = ["Holdings"]


class Holdings:
    """Gives layers their places, and takes back what they hold.

    Parameters
    ----------
    places
        Layers that stand alone and may be between claimed and published.
    """

    def __init__(
        self,
        *,
        repository: Repository,
        spool: Spool,
        flights: Flights,
        claims: Claims,
        image_claims: ImageClaims,
        places: int,
    ) -> None:
        self._repository = repository
        self._spool = spool
        self._flights = flights
        self._claims = claims
        self._image_claims = image_claims
        self._places = asyncio.Semaphore(places)

    async def take_place(self) -> None:
        """Wait for a place for one more layer, and take it."""
        await self._places.acquire()

    def free_place(self, digest: Digest) -> None:
        """Give the place of a layer back that holds nothing else."""
        self._places.release()
        self.land([digest])

    async def drop(self, units: Sequence[Unit]) -> None:
        """Drop what was held for units that have been published or have failed."""
        for unit in units:
            for prepared in unit.layers:
                await self._repository.discard(prepared)
                await self._spool.release(prepared.layer.digest, prepared.layer.size)
            if isinstance(unit, ReadyLayer):
                self._places.release()
        self.land(digests_of(units))
        self._image_claims.done(names_of(units))

    def land(self, digests: Iterable[Digest]) -> None:
        """Give layers back that hold nothing else; whoever waits for them looks again."""
        self._flights.land(digests)
        self._claims.wake()
