"""Locks by name, each there only as long as somebody holds it or waits for it."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

__all__ = ["Locks"]

_Name = TypeVar("_Name", bound=Hashable)


class Locks(Generic[_Name]):
    """A lock for each of any number of things: layers come and go for as long as the program runs."""

    def __init__(self) -> None:
        self._locks: dict[_Name, tuple[asyncio.Lock, int]] = {}
        """With the number of those who hold a lock or wait for it."""

    @asynccontextmanager
    async def hold(self, name: _Name) -> AsyncIterator[None]:
        """Keep everybody else from holding the lock of this name."""
        lock, users = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(name)
            if users > 1:
                self._locks[name] = (lock, users - 1)

    def __len__(self) -> int:
        """Return how many locks there are."""
        return len(self._locks)
