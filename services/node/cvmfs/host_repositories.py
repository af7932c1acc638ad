"""Repositories that the machine mounts, by autofs or for good.

To the kernel a repository is not in use only because a union stands on it. An automounter would take it off after a
while, and its client would live on for the union; the next one would then wait for that client's end before it mounts
the repository again (CernVM-FS, cvmfs/cvmfs.cc: the lock of the workspace), and no container could be started any more.
So a repository that is used is kept open.
"""

import asyncio
import os
import weakref
from pathlib import Path

import structlog

from services.common.repository_name import RepositoryName
from services.node.cvmfs.repositories import DEAD
from services.node.cvmfs.repository_io import RepositoryIo
from services.node.errors import RepositoryError
from services.node.holders import Holders

__all__ = ["HostRepositories"]

_log = structlog.get_logger(__name__)


class _OpenDirectory:
    """A directory that is open, and in use to the kernel, until the last reference to this object has gone."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, descriptor)
        # Unlike the attributes of a file, this is in no cache of the kernel's: the client itself answers.
        os.fstatvfs(descriptor)


class HostRepositories:
    """Repositories that the machine mounts: all that can be done for them is to look, and to keep them open.

    Parameters
    ----------
    root
        Directory of the repositories, `/cvmfs` as a rule.
    io
        Threads for the look-ups.
    """

    def __init__(self, *, root: Path, io: RepositoryIo) -> None:
        self._root = root
        self._io = io
        self._holders = Holders[RepositoryName]()
        self._open: dict[RepositoryName, _OpenDirectory] = {}
        self._opening: set[asyncio.Task[None]] = set()

    def place(self, name: RepositoryName) -> Path:
        """Return where the machine mounts it."""
        return self._root / name

    async def ensure(self, name: RepositoryName, *, holder: str) -> Path:
        """Look the repository up, which may be what mounts it."""
        path = self.place(name)
        try:
            opened = await self._io.run(lambda: _OpenDirectory(path / "."), name)
        except OSError as error:
            self._open.pop(name, None)
            raise RepositoryError(
                f"repository {name} is not usable at {path}: {os.strerror(error.errno or 0)}; "
                + (
                    "its client process is gone (cvmfs_config reload, or umount -l and look again)"
                    if error.errno in DEAD
                    else "configure the CVMFS client for it and try: cvmfs_config probe " + name
                )
            ) from error
        self._holders.add(name, holder)
        self._open[name] = opened
        return path

    def claim(self, name: RepositoryName, *, holder: str) -> None:
        """Note a use without looking."""
        self._holders.add(name, holder)

    def release(self, *, holder: str) -> None:
        """Forget the user; the mount is the machine's affair."""
        for name in self._holders.drop(holder):
            self._open.pop(name, None)

    def adopt(self) -> None:
        """Open, when they answer, the repositories that an earlier process of this program kept open."""
        for name in self._holders.counts():
            task = asyncio.get_running_loop().create_task(self._reopen(name))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _reopen(self, name: RepositoryName) -> None:
        try:
            opened = await self._io.run(lambda: _OpenDirectory(self.place(name) / "."), name)
        except (OSError, RepositoryError) as error:
            _log.warning("used_repository_not_open", repository=name, reason=str(error))
            return
        if name in self._holders:
            self._open.setdefault(name, opened)

    async def shut_down(self) -> None:
        """Close every repository; nobody may use one any more."""
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        self._open.clear()

    def in_use(self) -> dict[RepositoryName, int]:
        """Return the number of users of each repository that has any."""
        return self._holders.counts()
