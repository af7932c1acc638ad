"""The network between two that talk: how it is, and what that does to connections."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

__all__ = ["WELL", "Condition", "Network", "Passage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How a network is."""

    latency: float = 0
    """Seconds that each piece takes, in each direction."""
    rate: float = math.inf
    """Bytes a second of each direction of a connection."""
    silent: bool = False
    """Nothing comes through and nobody is told: connections stay, and new ones are taken and hear nothing."""
    resets: bool = False
    """Whoever sends something is answered by RST, and so are new connections."""
    wrong: int = 0
    """Of so many bytes that come back on a connection the last is a wrong one; 0 for none."""


WELL: Final = Condition()


class Network:
    """A network, which is well until something is done to it."""

    def __init__(self) -> None:
        self.condition = WELL
        self._changed = asyncio.Event()
        self._passages: set[Passage] = set()

    def become(self, condition: Condition) -> None:
        """Be in another condition, for the connections that are there and for new ones."""
        self.condition = condition
        self._changed.set()
        self._changed = asyncio.Event()

    def forget(self) -> None:
        """Half-open: the connections that are there hear nothing any more, and are not told; new ones pass."""
        for passage in self._passages:
            passage.forgotten = True

    @contextmanager
    def passage(self) -> Iterator["Passage"]:
        """Have a connection."""
        passage = Passage(self)
        self._passages.add(passage)
        try:
            yield passage
        finally:
            self._passages.remove(passage)

    async def change(self) -> None:
        """Wait until the condition is another one."""
        await self._changed.wait()


class Passage:
    """One connection.

    Parameters
    ----------
    network
        What it goes over.
    """

    def __init__(self, network: Network) -> None:
        self.forgotten = False
        """Whether nothing comes through any more, however the network is."""
        self._network = network

    async def begin(self) -> None:
        """Get to the server.

        Raises
        ------
        ConnectionResetError
            One does not get there.
        """
        if (await self._settled()).resets:
            raise ConnectionResetError

    async def there(self, _position: int, piece: bytes) -> bytes:
        """Bring a piece to the server; an `Effect`."""
        await self._carried(piece)
        return piece

    async def back(self, position: int, piece: bytes) -> bytes:
        """Bring a piece from the server; an `Effect`."""
        wrong = (await self._carried(piece)).wrong
        if not wrong:
            return piece
        changed = bytearray(piece)
        for at in range(wrong - 1 - position % wrong, len(piece), wrong):
            changed[at] ^= 0xFF
        return bytes(changed)

    async def _carried(self, piece: bytes) -> Condition:
        condition = await self._settled()
        if pause := condition.latency + len(piece) / condition.rate:
            await asyncio.sleep(pause)
            condition = await self._settled()
        if condition.resets:
            raise ConnectionResetError
        return condition

    async def _settled(self) -> Condition:
        """Wait until something comes through; return how the network is then."""
        while self.forgotten or self._network.condition.silent:
            await self._network.change()
        return self._network.condition
