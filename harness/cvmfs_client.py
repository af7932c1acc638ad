"""The machine's CVMFS client, run by the drivers of several nodes side by side, and the server that it reads from."""

import asyncio
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from harness.http import answers
from harness.ports import free_ports
from harness.processes import Daemon
from services.common.repository_name import RepositoryName
from services.node.cvmfs.program import run

__all__ = ["CvmfsClient", "NoClientError", "RepositoryServer", "mount_repository"]

_PROGRAM: Final = "cvmfs2"
_FUSE: Final = Path("/dev/fuse")

_OPTIONS: Final = "fsname=cvmfs2,allow_other,cvmfs_suid"
"""As the client's own mount helper sets them."""
_MOUNT_TIMEOUT: Final = 300
"""Most seconds for a mount on a busy machine."""

_CONFIGURATION: Final = """\
CVMFS_SERVER_URL={url}
CVMFS_PUBLIC_KEY={key}
CVMFS_HTTP_PROXY=DIRECT
CVMFS_CLAIM_OWNERSHIP=no
CVMFS_QUOTA_LIMIT=4000
CVMFS_CACHE_BASE={cache}
CVMFS_RELOAD_SOCKETS={sockets}
"""
"""What a client needs to know of a repository, and where it keeps its own."""


class NoClientError(Exception):
    """The machine cannot mount repositories; the text says why."""


@dataclass(frozen=True)
class CvmfsClient:
    """The client program of this machine."""

    program: Path

    @classmethod
    def find(cls) -> Self:
        """Find it on the PATH.

        Raises
        ------
        NoClientError
            It is not there, or cannot mount.
        """
        program = shutil.which(_PROGRAM)
        if program is None:
            raise NoClientError(f"there is no CVMFS client ({_PROGRAM}) on this machine")
        if not _FUSE.exists():
            raise NoClientError(f"the CVMFS client needs {_FUSE}, which is not on this machine")
        return cls(Path(program).absolute())

    def driver_settings(self, directory: Path, *, url: str, key: Path) -> dict[str, str]:
        """Configure the client for one node; return settings of a graphdriver that mounts with it.

        Parameters
        ----------
        directory, url, key
            As of `configured`.
        """
        program = self.configured(directory, url=url, key=key)
        return {"GRAPHDRIVER_REPOSITORY_MOUNTS": "driver", "GRAPHDRIVER_CVMFS2": str(program)}

    def configured(self, directory: Path, *, url: str, key: Path) -> Path:
        """Configure the client for one node; return the program that mounts so.

        Clients that share a cache or their sockets would take the second mount of a repository for the first one.
        The machine's own configuration is neither read nor changed.

        Parameters
        ----------
        directory
            Where the node's client keeps everything; it is made.
        url
            Where the repository is served (`CVMFS_SERVER_URL`).
        key
            Public key of the repository.
        """
        cache, sockets = directory / "cache", directory / "sockets"
        for made in (cache, sockets):
            made.mkdir(parents=True)
        configuration = directory / "client.conf"
        configuration.write_text(_CONFIGURATION.format(url=url, key=key, cache=cache, sockets=sockets))
        program = directory / _PROGRAM
        program.write_text(f'#!/bin/sh\nexec {self.program} -o config={configuration} "$@"\n')
        program.chmod(0o755)
        return program


async def mount_repository(program: Path, name: RepositoryName, point: Path) -> None:
    """Mount a repository as a machine does, with a client that has been configured; it ends with the sandbox.

    Raises
    ------
    RepositoryError
        The client cannot.
    """
    await asyncio.to_thread(point.mkdir, parents=True)
    await run(str(program), "-o", _OPTIONS, name, str(point), timeout=_MOUNT_TIMEOUT, what=f"mount of {name}")


class RepositoryServer:
    """Serves the files of a native repository by HTTP.

    Parameters
    ----------
    directory
        The repository.
    log
        File that gets what the server says.
    """

    def __init__(self, directory: Path, *, log: Path) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        """What clients call `CVMFS_SERVER_URL`."""
        arguments = ["--bind", "127.0.0.1", "--directory", str(directory), str(port)]
        self._server = Daemon("repository server", [sys.executable, "-m", "http.server", *arguments], log=log)

    async def start(self) -> None:
        """Start it and wait until it serves the repository, which is there.

        Raises
        ------
        DaemonError
            It ended, or does not serve it in time.
        """
        await self._server.start(lambda: answers(f"{self.url}/.cvmfspublished"))

    async def close(self) -> None:
        """End it."""
        await self._server.kill()
