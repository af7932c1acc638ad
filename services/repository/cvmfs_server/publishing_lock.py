"""The lock that `cvmfs_server publish` and `abort` hold, and what becomes of it when they are killed.

`publish` keeps the lock by a descriptor of its shell, which everything that the shell starts inherits: also the CVMFS
client that mounts the new revision. A shell that is killed after that leaves the lock to the client, which lives as
long as the mount. No publish and no abort gets the lock then, and none of them would take it from the other. The
file is removed here in this one case: the next one makes a new file, and the client keeps a lock on nothing.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from services.common.repository_name import RepositoryName
from services.repository.errors import RepositoryError

__all__ = ["PublishingLock"]

_log = structlog.get_logger(__name__)

_CLIENT: Final = "cvmfs2"
_PROGRAMS: Final = frozenset((b"cvmfs_server", b"cvmfs_publish", b"cvmfs_swissknife", b"cvmfs_swissknife_debug"))
_LOOKS: Final = frozenset((b"info", b"list", b"check"))
"""What the programs do without the lock."""
_REPOSITORY = re.compile(rb"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")


class PublishingLock:
    """The lock of one repository.

    Parameters
    ----------
    path
        Its file.
    name
        The repository.
    """

    def __init__(self, path: Path, name: RepositoryName) -> None:
        self._path = path
        self._name = name

    def inherited_by(self) -> tuple[int, ...]:
        """Return the CVMFS clients that hold the lock for nobody; none where it is free or somebody's; blocking."""
        if not self._path.exists():
            return ()
        holders = tuple(_holders(self._path))
        if not all(_command(holder) == _CLIENT for holder in holders) or self._used():
            return ()
        return holders

    def release_inherited(self) -> None:
        """Free the lock if nobody but CVMFS clients holds it; blocking.

        Nobody else can take it between the look and the removal, since the clients hold it all the while.

        Raises
        ------
        RepositoryError
            The file cannot be removed.
        """
        if clients := self.inherited_by():
            _log.warning(
                "a killed program has left the publishing lock to CVMFS clients: removing it",
                lock=str(self._path),
                clients=clients,
            )
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                raise RepositoryError(f"{self._path} cannot be removed: {error.strerror}") from error

    def _used(self) -> bool:
        """Tell whether a program works on the repository, or on one that its arguments do not name."""
        for process in _processes():
            with contextlib.suppress(OSError):
                arguments = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
                # The program is a script: its interpreter comes before it.
                if not _PROGRAMS.intersection(map(os.path.basename, arguments[:3])) or _LOOKS.intersection(arguments):
                    continue
                named = [argument for argument in arguments if _REPOSITORY.fullmatch(argument)]
                if not named or self._name.encode() in named:
                    return True
        return False


def _holders(path: Path) -> Iterator[int]:
    """List the processes that hold a lock on a file.

    Neither the file nor any other that a process has open is looked at: it might be on a file system that hangs.
    """
    wanted = os.path.realpath(path)
    for process in _processes():
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{process}/fd"):
                if _holds(process, descriptor, wanted):
                    yield process
                    break


def _holds(process: int, descriptor: str, wanted: str) -> bool:
    try:
        if os.readlink(f"/proc/{process}/fd/{descriptor}") != wanted:
            return False
        return "FLOCK" in Path(f"/proc/{process}/fdinfo/{descriptor}").read_text(encoding="ascii")
    except OSError:
        return False


def _processes() -> Iterator[int]:
    return map(int, filter(str.isdecimal, os.listdir("/proc")))


def _command(process: int) -> str | None:
    try:
        return Path(f"/proc/{process}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
