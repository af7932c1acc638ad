"""Work that goes on side by side, and what must not be done while any of it does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["WorkGate"]


class WorkGate:
    """Counts what is under way, and can keep more from beginning."""

    def __init__(self) -> None:
        self._closed = asyncio.Lock()
        self._begun = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self._begun == 0

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Be under way for as long as the context lasts."""
        async with self._closed:
            self._begun += 1
        try:
            yield
        finally:
            self._begun -= 1

    def closed(self) -> asyncio.Lock:
        """Return what lets nothing begin while it is held; what is under way goes on."""
        return self._closed
