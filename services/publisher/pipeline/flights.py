"""Which layers are on their way, whoever wants them: nobody begins with one that is in flight for somebody else."""

import asyncio
from collections.abc import Collection, Iterable

from services.common.digest import Digest

__all__ = ["Flights"]


class Flights:
    """Layers between their claim and the end of what became of it: published, or given up."""

    def __init__(self) -> None:
        self._flying: set[Digest] = set()
        self._landed = asyncio.Event()

    @property
    def digests(self) -> Collection[Digest]:
        """The layers that are on their way."""
        return self._flying

    def take(self, digests: Collection[Digest]) -> bool:
        """Claim layers, all of them or none; False if one is on its way for somebody else.

        Whoever waits therefore holds none, so no two can wait for one another.
        """
        if not self._flying.isdisjoint(digests):
            return False
        self._flying.update(digests)
        return True

    def land(self, digests: Iterable[Digest]) -> None:
        """Give claimed layers back, whatever became of them."""
        self._flying.difference_update(digests)
        self._landed.set()
        self._landed = asyncio.Event()

    async def landed(self, digests: Collection[Digest]) -> None:
        """Wait until none of some layers is on its way any more."""
        while not self._flying.isdisjoint(digests):
            await self._landed.wait()
