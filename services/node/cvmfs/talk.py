"""Asking CVMFS clients to look for the newest revision.

That is what `cvmfs_talk -i REPOSITORY remount sync` does. Where there is no such program, as in a container on a
machine that has the client, the client is asked through its socket itself: the command goes there as it is, without a
newline, and the answer ends with the connection (CernVM-FS, cvmfs/talk.cc).
"""

import asyncio
import shutil
from pathlib import Path
from typing import Final

from services.common.repository_name import RepositoryName
from services.node.cvmfs.program import run
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
        Directory of the clients' caches, where their sockets are: `/var/lib/cvmfs` as a rule.
    """

    def __init__(self, *, command: str, state: Path) -> None:
        self._command = command
        self._state = state

    def reaches(self, name: RepositoryName) -> bool:
        """Return whether there is a way to ask the client of a repository."""
        return shutil.which(self._command) is not None or self._socket(name) is not None

    async def refresh(self, name: RepositoryName) -> None:
        """Ask the client of a repository to look for the newest revision, and wait until it shows it.

        Raises
        ------
        RepositoryError
            The client cannot be asked, fails, or does not answer in time.
        """
        if shutil.which(self._command) is not None:
            await run(*(self._command, "-i", name, "remount", "sync"), timeout=_TIMEOUT, what=f"refresh of {name}")
        elif (socket := self._socket(name)) is not None:
            try:
                async with asyncio.timeout(_TIMEOUT):
                    answer = await _ask(socket, b"remount sync")
            except (OSError, TimeoutError) as error:
                raise RepositoryError(f"refresh of {name}: {socket} does not answer: {error}") from error
            if answer.startswith("Failed"):
                raise RepositoryError(f"refresh of {name}: the client says: {answer}")

    def _socket(self, name: RepositoryName) -> Path | None:
        # By whether repositories share one cache, which they do by default.
        places = (self._state / workspace / f"cvmfs_io.{name}" for workspace in ("shared", name))
        return next(filter(Path.is_socket, places), None)


async def _ask(socket: Path, command: bytes) -> str:
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(command)
        await writer.drain()
        return (await reader.read(_ANSWER_LIMIT)).decode(errors="replace").strip()
    finally:
        writer.close()
