"""Who may fetch and prepare next: nobody with much to do holds up those with little."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

__all__ = ["Workers"]


@dataclass(eq=False, slots=True)
class _Waiting:
    owners: tuple[str, ...]
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Workers:
    """A number of workers, shared by images and registries; the bucket's layers have them as well.

    Parameters
    ----------
    count
        How many there are. One image, and one registry, has at most all but one of them, so that one that is huge or
        slow leaves a way for the others.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._most = max(1, count - 1)
        self._held = Counter[str]()
        self._waiting: list[_Waiting] = []

    @asynccontextmanager
    async def one(self, *owners: str) -> AsyncIterator[None]:
        """Have a worker for the context; of those that wait, the one comes first whose owners have the fewest.

        Parameters
        ----------
        owners
            Who has it: the image and its registry. Without any it is not limited.
        """
        waiting = _Waiting(owners)
        self._waiting.append(waiting)
        self._assign()
        try:
            await waiting.turn
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            else:
                self._give_back(owners)
            raise
        try:
            yield
        finally:
            self._give_back(owners)

    def _give_back(self, owners: tuple[str, ...]) -> None:
        self._free += 1
        self._held.subtract(owners)
        self._held += Counter()  # without those that have none
        self._assign()

    def _assign(self) -> None:
        while self._free:
            allowed = [waiting for waiting in self._waiting if self._most_held(waiting) < self._most]
            if not allowed:
                return
            chosen = min(allowed, key=self._most_held)  # the first of those that have as few
            self._waiting.remove(chosen)
            self._free -= 1
            self._held.update(chosen.owners)
            chosen.turn.set_result(None)

    def _most_held(self, waiting: _Waiting) -> int:
        return max((self._held[owner] for owner in waiting.owners), default=0)
