"""Asking CVMFS clients to look for the newest revision.

That is what `cvmfs_talk -i REPOSITORY remount sync` does. It goes by the machine's configuration, which a client need
not have, and is not there in a container on a machine that has the client. So a client is asked through its socket
itself where that can be found: the command goes there as it is, without a newline, and the answer ends with the
connection (CernVM-FS, cvmfs/talk.cc).
"""

import asyncio
import shutil
from pathlib import Path
from typing import Final

from services.common.repository_name import RepositoryName
from services.node.cvmfs.client_socket import find_client, first_socket, workspaces
from services.node.cvmfs.program import run
from services.node.cvmfs.repository_io import RepositoryIo
from services.node.errors import RepositoryError

__all__ = ["ClientTalk"]

_TIMEOUT: Final = 60
"""Seconds that an answer may take: the client lets the kernel's caches run out."""
_ANSWER_LIMIT: Final = 1000


class ClientTalk:
    """Talks to the clients of this machine.

    Parameters
    ----------
    command
        The program.
    state
        Directory of the clients' caches, where their sockets are unless their configuration says otherwise:
        `/var/lib/cvmfs` as a rule.
    io
        Threads for looks at mounts.
    """

    def __init__(self, *, command: str, state: Path, io: RepositoryIo) -> None:
        self._command = command
        self._state = state
        self._io = io

    async def refresh(self, name: RepositoryName, root: Path) -> None:
        """Ask the client of a repository to look for the newest revision, and wait until it shows it.

        Nothing happens where no client serves it: a repository can be a directory.

        Parameters
        ----------
        root
            Where the repository is mounted.

        Raises
        ------
        RepositoryError
            The client cannot be asked, fails, or does not answer in time.
        """
        client = await self._io.run(lambda: find_client(root, name), name)
        if client is not None and client.socket is not None:
            await _refresh_through(client.socket, name)
        elif shutil.which(self._command) is not None:
            await self._refresh_by_command(name)
        elif (socket := first_socket(workspaces(self._state, name), name)) is not None:
            await _refresh_through(socket, name)
        elif client is not None:
            raise RepositoryError(
                f"refresh of {name}: its client, process {client.pid}, cannot be asked: there is no {self._command}, "
                f"and its socket cvmfs_io.{name} is neither where that process works nor below {self._state}: have it "
                "work there (CVMFS_CACHE_BASE), or, from a container, have the directory where it works mounted there"
            )

    async def _refresh_by_command(self, name: RepositoryName) -> None:
        try:
            await run(*(self._command, "-i", name, "remount", "sync"), timeout=_TIMEOUT, what=f"refresh of {name}")
        except RepositoryError as error:
            raise RepositoryError(
                f"{error}: see that `{self._command} -i {name} remount sync` finds the client, by CVMFS_CACHE_BASE in "
                "/etc/cvmfs"
            ) from error


async def _refresh_through(socket: Path, name: RepositoryName) -> None:
    try:
        async with asyncio.timeout(_TIMEOUT):
            answer = await _ask(socket, b"remount sync")
    except (OSError, TimeoutError) as error:
        raise RepositoryError(f"refresh of {name}: {socket} does not answer: {error}") from error
    if answer.startswith("Failed"):
        raise RepositoryError(f"refresh of {name}: the client says: {answer}")


async def _ask(socket: Path, command: bytes) -> str:
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(command)
        await writer.drain()
        return (await reader.read(_ANSWER_LIMIT)).decode(errors="replace").strip()
    finally:
        writer.close()
