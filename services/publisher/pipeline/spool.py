"""The spool: layer archives on local disk between the object store and the repository."""

import asyncio
import hashlib
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import aiofiles.os

from services.common.arriving_file import ArrivingFile
from services.common.digest import Digest
from services.common.lock_file import locked_directory
from services.common.threads import Stop, in_thread, to_end

__all__ = ["Spool"]

_PIECE: Final = 1 << 20


class Spool:
    """A private directory of verified archives, with a bound on their bytes.

    Parameters
    ----------
    directory
        Where they are; made if it does not exist.
    limit
        Most bytes of all archives together. What is larger is let in beside them, one at a time, since it may take
        hours.
    threads
        Where blocking work runs.
    """

    def __init__(self, *, directory: Path, limit: int, threads: Executor) -> None:
        self._directory = directory
        self.limit = limit
        self._threads = threads
        self._used = 0
        self._large: dict[Digest, int] = {}
        self._users = Counter[Digest]()
        self._left = set[Digest]()
        self._entry, self._large_entry = asyncio.Lock(), asyncio.Lock()
        self._changed = asyncio.Condition()

    @property
    def used(self) -> int:
        """Bytes of the archives that are there or on their way."""
        return self._used + sum(self._large.values())

    @property
    def has_left(self) -> bool:
        """Whether there are archives of an earlier publisher that nobody has come for."""
        return bool(self._left)

    def path(self, digest: Digest) -> Path:
        """Where a layer's archive is once it has been verified."""
        return self._directory / digest

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have the directory to oneself.

        Raises
        ------
        LockError
            Another publisher has it.
        """
        self._make()
        with locked_directory(self._directory, otherwise=f"another publisher has the spool {self._directory}"):
            yield

    def _make(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._directory.chmod(0o700)

    async def clean(self, keep: Iterable[Digest]) -> None:
        """Make the directory; remove everything but archives that a journal knows as verified."""
        self._make()
        names = set(await aiofiles.os.listdir(self._directory))
        self._left = {digest for digest in keep if digest in names}
        for name in names - self._left:
            await aiofiles.os.unlink(self._directory / name)

    async def drop_left(self, keep: Iterable[Digest]) -> None:
        """Remove archives of an earlier publisher that nobody has come for, and nobody will.

        Parameters
        ----------
        keep
            Those that somebody may still come for.
        """
        for digest in self._left.difference(keep):
            if digest in self._left:  # nobody has come for it while others were removed
                self._left.remove(digest)
                await self._remove(digest)

    async def holds(self, digest: Digest) -> bool:
        """Whether an earlier publisher has left a layer's archive here that is still what it was."""
        path = self.path(digest)
        return path.exists() and await in_thread(self._threads, lambda stop: _sha256(path, stop)) == digest

    async def reserve(self, digest: Digest, size: int) -> None:
        """Wait, in the order of arrival, until there is room for a layer's archive of `size` bytes, and take it."""
        await self.reserve_all({digest: size})

    async def reserve_all(self, sizes: Mapping[Digest, int]) -> None:
        """Wait, as `reserve`, until there is room for several archives together: nobody waits who holds some.

        What is larger than the limit waits for nothing but others that are, and keeps nobody else waiting.
        """
        size = sum(sizes.values())
        if size > self.limit:
            async with self._large_entry, self._changed:
                await self._changed.wait_for(lambda: not self._large)
                self._large.update(sizes)
        else:
            async with self._entry, self._changed:
                await self._changed.wait_for(lambda: self._used + size <= self.limit)
                self._used += size
        self._users.update(sizes.keys())
        self._left.difference_update(sizes)

    async def release(self, digest: Digest, size: int) -> None:
        """Give the room of a layer's archive back, and remove the archive unless it is wanted once more.

        A layer that has failed may be tried again before what the first attempt held has been given back.
        """
        self._users[digest] -= 1
        if not self._users[digest]:
            del self._users[digest]
            await self._remove(digest)
        async with self._changed:
            if self._large.pop(digest, None) is None:
                self._used -= size
            self._changed.notify_all()

    async def _remove(self, digest: Digest) -> None:
        """Remove an archive, if it is there.

        That may take a while, so the archive has another name by then: the next attempt may have put its own in its
        place.
        """
        gone = self._directory / f"{digest}.gone"
        with suppress(FileNotFoundError):
            os.replace(self.path(digest), gone)
            await aiofiles.os.unlink(gone, executor=self._threads)

    @asynccontextmanager
    async def arriving(self, digest: Digest) -> AsyncIterator[ArrivingFile]:
        """Open a hidden file for a layer's archive; it is removed in the end, unless it has got its final name."""
        path = self._directory / f".{digest}.{secrets.token_hex(4)}.part"
        with ArrivingFile(path) as file:
            try:
                yield file
            finally:
                with suppress(FileNotFoundError):
                    await to_end(aiofiles.os.unlink(path, executor=self._threads))

    @asynccontextmanager
    async def room(self, digest: Digest, size: int) -> AsyncIterator[None]:
        """Reserve room for a layer's archive; give it back if the context is left by an error."""
        await self.reserve(digest, size)
        try:
            yield
        except Exception:
            await self.release(digest, size)
            raise


def _sha256(path: Path, stop: Stop) -> str:
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(_PIECE))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            stop.check()
    return hasher.hexdigest()
