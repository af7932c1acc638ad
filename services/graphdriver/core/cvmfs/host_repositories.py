"""Repositories that the machine mounts, by autofs or for good."""

import os
from pathlib import Path

from services.common.repository_name import RepositoryName
from services.graphdriver.core.cvmfs.repositories import DEAD
from services.graphdriver.core.cvmfs.repository_io import RepositoryIo
from services.graphdriver.core.holders import Holders
from services.graphdriver.errors import RepositoryError

__all__ = ["HostRepositories"]


class HostRepositories:
    """Repositories that the machine mounts: all that can be done for them is to look.

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

    async def ensure(self, name: RepositoryName, *, holder: str) -> Path:
        """Look the repository up, which may be what mounts it."""
        path = self._root / name
        try:
            await self._io.run(lambda: os.statvfs(path / "."), name)
        except OSError as error:
            raise RepositoryError(
                f"repository {name} is not usable at {path}: {os.strerror(error.errno or 0)}; "
                + (
                    "its client process is gone (cvmfs_config reload, or umount -l and look again)"
                    if error.errno in DEAD
                    else "configure the CVMFS client for it and try: cvmfs_config probe " + name
                )
            ) from error
        self._holders.add(name, holder)
        return path

    def claim(self, name: RepositoryName, *, holder: str) -> None:
        """Note a use without looking."""
        self._holders.add(name, holder)

    def release(self, *, holder: str) -> None:
        """Forget the user; the mount is the machine's affair."""
        self._holders.drop(holder)

    def adopt(self) -> None:
        """Nothing is mounted here."""

    async def shut_down(self) -> None:
        """Nothing is mounted here."""

    def in_use(self) -> dict[RepositoryName, int]:
        """Return the number of users of each repository that has any."""
        return self._holders.counts()
