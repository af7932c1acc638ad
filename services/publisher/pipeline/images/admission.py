"""Which layers of an image are missing, and the claim on them: all at once, or none while one is somebody else's."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from services.publisher.journal.image_model import VersionLayer
from services.publisher.pipeline.flights import Flights
from services.publisher.pipeline.holdings import Holdings
from services.publisher.pipeline.spool import Spool
from services.repository.interface import PreparedLayer, Repository

__all__ = ["Admission", "Admitted"]


@dataclass(slots=True)
class Admitted:
    """What an image holds on its way: the layers that it brings, and room in the spool for all of them."""

    missing: Sequence[VersionLayer]
    prepared: list[PreparedLayer] = field(default_factory=list)
    kept: bool = False
    """Whether whoever publishes the image drops it all."""


class Admission:
    """Lets images begin to fetch."""

    def __init__(self, *, repository: Repository, flights: Flights, spool: Spool, holdings: Holdings) -> None:
        self._repository = repository
        self._flights = flights
        self._spool = spool
        self._holdings = holdings

    @asynccontextmanager
    async def of(self, layers: Sequence[VersionLayer]) -> AsyncIterator[Admitted]:
        """Wait until the missing ones of some layers can be fetched; what is not kept in the end is given back.

        Raises
        ------
        RepositoryError
            The repository cannot be read.
        """
        missing = await self._claim(layers)
        admitted = Admitted(missing)
        reserved = False
        try:
            if missing:
                await self._spool.reserve_all({layer.digest: layer.size for layer in missing})
                reserved = True
            yield admitted
        finally:
            if not admitted.kept:
                for prepared in admitted.prepared:
                    await self._repository.discard(prepared)
                for layer in missing if reserved else ():
                    await self._spool.release(layer.digest, layer.size)
                self._holdings.land(layer.digest for layer in missing)

    async def _claim(self, layers: Sequence[VersionLayer]) -> list[VersionLayer]:
        """Claim the layers that the repository does not have."""
        absent = await self._unsure(layers)
        while not self._flights.take({layer.digest for layer in absent}):
            await self._flights.landed({layer.digest for layer in absent})
            absent = await self._unsure(layers)
        try:
            # One may have been published between the look and the claim; now nobody else can.
            missing = await self._absent(absent)
        except BaseException:
            self._holdings.land(layer.digest for layer in absent)
            raise
        self._holdings.land({layer.digest for layer in absent} - {layer.digest for layer in missing})
        return missing

    async def _absent(self, layers: Sequence[VersionLayer]) -> list[VersionLayer]:
        return [layer for layer in layers if await self._repository.lookup(layer.digest) is None]

    async def _unsure(self, layers: Sequence[VersionLayer]) -> list[VersionLayer]:
        """Return layers that are not there, and those that are in flight: one that is there may be about to go."""
        return [
            layer
            for layer in layers
            if layer.digest in self._flights.digests or await self._repository.lookup(layer.digest) is None
        ]
