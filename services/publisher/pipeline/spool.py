"""The spool: layer archives on local disk between the object store and the repository."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from services.common.digest import Digest

__all__ = ["Spool"]


class Spool:
    """A private directory of verified archives, with a bound on their bytes.

    Parameters
    ----------
    directory
        Where they are; made if it does not exist.
    limit
        Most bytes of all archives together. One that is larger is let in when it is alone.
    """

    def __init__(self, *, directory: Path, limit: int) -> None:
        self._directory = directory
        self._limit = limit
        self._used = 0
        self._entry = asyncio.Lock()
        self._changed = asyncio.Condition()

    @property
    def used(self) -> int:
        """Bytes of the archives that are there or on their way."""
        return self._used

    def path(self, digest: Digest) -> Path:
        """Where a layer's archive is once it has been verified."""
        return self._directory / digest

    def clean(self, keep: Iterable[Digest]) -> None:
        """Make the directory; remove everything but archives that a journal knows as verified."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        for name in set(os.listdir(self._directory)).difference(keep):
            os.unlink(self._directory / name)

    async def reserve(self, size: int) -> None:
        """Wait, in the order of arrival, until there is room for `size` bytes, and take it."""
        async with self._entry, self._changed:
            await self._changed.wait_for(lambda: self._used == 0 or self._used + size <= self._limit)
            self._used += size

    async def release(self, digest: Digest, size: int) -> None:
        """Remove a layer's archive and give its room back."""
        self.path(digest).unlink(missing_ok=True)
        async with self._changed:
            self._used -= size
            self._changed.notify_all()

    @asynccontextmanager
    async def room(self, digest: Digest, size: int) -> AsyncIterator[None]:
        """Reserve room for a layer's archive; give it back if the context is left by an error."""
        await self.reserve(size)
        try:
            yield
        except Exception:
            await self.release(digest, size)
            raise
