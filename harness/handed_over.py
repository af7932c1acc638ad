"""A listening socket that outlives those who serve on it, as a service manager keeps one."""

import asyncio
import sys
from pathlib import Path
from socket import AF_UNIX, socket
from typing import Final

__all__ = ["HandedOver"]

# With one step more than a service manager has: the child's number is known to nobody before it is there.
_RUN: Final = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.executable, [sys.executable, "-m", sys.argv[2]])
"""


class HandedOver:
    """A unix socket.

    Parameters
    ----------
    path
        Where it listens.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listener = socket(AF_UNIX)

    def listen(self) -> None:
        """Listen: whoever connects waits for somebody to accept."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._listener.bind(str(self._path))
        self._listener.listen(128)

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()
        self._path.unlink(missing_ok=True)

    async def is_served(self) -> bool:
        """Tell whether somebody accepts, and says a first word."""
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            async with asyncio.timeout(1):
                return bool(await reader.read(1))
        except TimeoutError:
            return False
        finally:
            writer.close()

    @property
    def descriptor(self) -> int:
        """The socket's number, which the child has to have as well."""
        return self._listener.fileno()

    def command(self, module: str) -> list[str]:
        """Return the command that runs a module with the socket handed over (sd_listen_fds(3))."""
        return [sys.executable, "-c", _RUN, str(self.descriptor), module]
