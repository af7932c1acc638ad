"""Repositories that the driver mounts itself, by the CVMFS client."""

import asyncio
import contextlib
import errno
import os
from collections import defaultdict
from pathlib import Path
from typing import Final

import structlog

from services.common.errors import InvalidValueError
from services.common.repository_name import RepositoryName
from services.node import mounts
from services.node.cvmfs.program import run
from services.node.cvmfs.repositories import DEAD
from services.node.cvmfs.repository_io import RepositoryIo
from services.node.errors import MountError, RepositoryError
from services.node.holders import Holders

__all__ = ["ClientRepositories"]

_MOUNT_OPTIONS: Final = "fsname=cvmfs2,allow_other,grab_mountpoint,cvmfs_suid"
"""As the client's own mount helper sets them; `cvmfs_suid` keeps setuid and capability binaries working."""

_SOCKETS: Final = Path("/var/run/cvmfs")
"""Where the client has a socket; that helper makes it."""

_log = structlog.get_logger(__name__)


class ClientRepositories:
    """Repositories that the driver mounts with `cvmfs2`, each as long as somebody uses it and a while longer.

    Parameters
    ----------
    directory
        Where the mount points are made.
    command
        The client program.
    io
        Threads for the look-ups.
    mount_timeout
        Longest time for a mount, in seconds.
    linger
        How long an unused repository stays mounted, in seconds: starting a container takes several short uses.
    alternative
        How the front end is told to use the machine's own mounts, for messages.
    """

    def __init__(
        self,
        *,
        directory: Path,
        command: str,
        io: RepositoryIo,
        mount_timeout: float,
        linger: float,
        alternative: str,
    ) -> None:
        self._directory = directory
        self._command = command
        self._io = io
        self._mount_timeout = mount_timeout
        self._linger = linger
        self._alternative = alternative
        self._holders = Holders[RepositoryName]()
        self._locks: defaultdict[RepositoryName, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._timers: dict[RepositoryName, asyncio.TimerHandle] = {}
        self._unmounts: set[asyncio.Task[None]] = set()

    def place(self, name: RepositoryName) -> Path:
        """Return its mount point."""
        return self._directory / name

    async def ensure(self, name: RepositoryName, *, holder: str) -> Path:
        """Mount the repository if it is not, mount it again if its client died."""
        point = self.place(name)
        async with self._locks[name]:
            self._holders.add(name, holder)
            if (timer := self._timers.pop(name, None)) is not None:
                timer.cancel()
            if not await self._alive(name, point):
                await self._mount(name, point)
        return point

    async def _alive(self, name: RepositoryName, point: Path) -> bool:
        def look() -> bool:
            try:
                # ismount first: an empty directory that nothing is mounted on answers everything.
                if not os.path.ismount(point):
                    return False
                # Unlike the attributes of a file, this is in no cache of the kernel's: the client itself answers.
                os.statvfs(point / ".")
            except OSError as error:
                if error.errno not in (*DEAD, errno.ENOENT):
                    raise
                return False
            return True

        try:
            return await self._io.run(look, name)
        except OSError as error:
            raise RepositoryError(f"repository {name} is not usable at {point}: {error.strerror}") from error

    async def _mount(self, name: RepositoryName, point: Path) -> None:
        if await asyncio.to_thread(mounts.unmount, point):
            _log.warning("dead_repository_mount_replaced", repository=name, mount_point=str(point))
        for directory in (point, _SOCKETS):
            await asyncio.to_thread(directory.mkdir, mode=0o755, parents=True, exist_ok=True)
        output = await run(
            self._command, "-o", _MOUNT_OPTIONS, name, str(point), timeout=self._mount_timeout, what=f"mount of {name}"
        )
        if not await self._alive(name, point):
            # As the client does where the machine has the repository mounted as well.
            raise RepositoryError(
                f"{self._command} ended well, but repository {name} is not mounted at {point}: {output}: "
                f"if the machine mounts it, unmount it there or set {self._alternative}"
            )
        _log.info("repository_mounted", repository=name, mount_point=str(point))

    def claim(self, name: RepositoryName, *, holder: str) -> None:
        """Note a use without looking."""
        self._holders.add(name, holder)

    def release(self, *, holder: str) -> None:
        """Forget the user; a repository that nobody uses is unmounted after a while."""
        for name in self._holders.drop(holder):
            self._schedule_unmount(name)

    def adopt(self) -> None:
        """Take over what an earlier process of this program left mounted, once the users are known again."""
        if self._directory.is_dir():
            for point in self._directory.iterdir():
                with contextlib.suppress(InvalidValueError):  # somebody else's, such as lost+found
                    if (name := RepositoryName(point.name)) not in self._holders:
                        self._schedule_unmount(name)

    def _schedule_unmount(self, name: RepositoryName) -> None:
        self._timers[name] = asyncio.get_running_loop().call_later(self._linger, self._expire, name)

    def _expire(self, name: RepositoryName) -> None:
        self._timers.pop(name, None)
        task = asyncio.get_running_loop().create_task(self._unmount_idle(name))
        self._unmounts.add(task)
        task.add_done_callback(self._unmounts.discard)

    async def _unmount_idle(self, name: RepositoryName) -> None:
        async with self._locks[name]:
            if name in self._holders:
                return
            try:
                # A copy in another mount namespace would keep the client alive, and the next one waits for its end.
                await asyncio.to_thread(mounts.remove_mount_point, self.place(name))
                _log.info("repository_unmounted", repository=name)
            except (MountError, OSError) as error:
                _log.warning("repository_not_unmounted", repository=name, error=str(error))

    async def shut_down(self) -> None:
        """Unmount every repository that this program mounted; nobody may use one any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await asyncio.gather(*self._unmounts)
        if self._directory.is_dir():
            for point in self._directory.iterdir():
                await asyncio.to_thread(mounts.unmount, point)

    def in_use(self) -> dict[RepositoryName, int]:
        """Return the number of users of each repository that has any."""
        return self._holders.counts()
