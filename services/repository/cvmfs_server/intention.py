"""That a transaction is about to be opened, on the disk before the program that opens it is started.

A transaction is claimed when the program has opened it, some hundred milliseconds after its flag came into being. If
everything is killed between the two, the flag looks like a stranger's. By the intention it can be told from one:

- it came into being while the opener was at work: not before the intention, and not after the last beat of the opener,
  which renews the intention as long as the program runs;
- nothing has been written into the transaction: the opener writes its marker after it has made its claim;
- the opener is dead: one that lives will claim the flag itself;
- the opener did not learn that somebody else was quicker: it withdraws the intention then.

The token is the journal's, so that a publisher takes only its own intentions for its own.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from services.common.durable import replace_file, sync_directory
from services.repository.cvmfs_server.identity import process_identity

__all__ = ["Intention", "IntentionFile"]

_NAME: Final = "publisher-intention"
_COARSE_CLOCK: Final = 5
"""CLOCK_REALTIME_COARSE (linux/time.h), by which files get their times: the ordinary clock is ahead of it."""
_SLACK: Final = 1_000_000_000
"""Nanoseconds after a beat in which the program may still have made its flag: a busy machine delays the next one."""


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Intention:
    """Who was about to open which transaction, and when."""

    token: str
    boot: str
    opener: str
    """Identity of the process."""
    begun: int
    """Nanoseconds since the epoch."""
    beat: int
    """When the opener was last seen at work, in nanoseconds since the epoch."""

    @property
    def living_opener(self) -> str | None:
        """The identity of the opener while it lives."""
        pid = int(self.opener.partition("/")[0])
        return self.opener if self.boot == _boot() and process_identity(pid) == self.opener else None

    def made(self, flag: Path, scratch: Path) -> bool:
        """Tell whether an unclaimed flag is this intention's; blocking.

        Parameters
        ----------
        flag
            What `cvmfs_server` marks an open transaction by.
        scratch
            Directory of what has been written into the transaction.
        """
        try:
            born = flag.stat().st_mtime_ns
            written = bool(os.listdir(scratch))
        except FileNotFoundError:
            return False
        return self.begun <= born <= self.beat + _SLACK and not written and self.living_opener is None


class IntentionFile:
    """The intention of whoever opens transactions of a repository; beside the flag.

    Parameters
    ----------
    flag
        What `cvmfs_server` marks an open transaction by.
    """

    def __init__(self, flag: Path) -> None:
        self._path = flag.with_name(_NAME)

    def read(self) -> Intention | None:
        """Return the last intention that was not withdrawn."""
        try:
            return Intention(**json.loads(self._path.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def remove(self) -> None:
        """Forget the intention: the flag, if there is one, is claimed, or somebody else's."""
        self._path.unlink(missing_ok=True)
        sync_directory(self._path.parent)

    def record(self, token: str) -> "Beating":
        """Record the intention of this process, so that it survives a loss of power.

        Parameters
        ----------
        token
            Names the transaction.
        """
        now = time.clock_gettime_ns(_COARSE_CLOCK)
        identity = process_identity(os.getpid())
        if identity is None:
            raise RuntimeError("this process is not in /proc")
        intention = Intention(token=token, boot=_boot(), opener=identity, begun=now, beat=now)
        return Beating(self, self._path, intention).renew()


class Beating:
    """An intention of this process."""

    def __init__(self, file: IntentionFile, path: Path, intention: Intention) -> None:
        self._file = file
        self._path = path
        self._intention = intention

    def renew(self) -> Self:
        """Say that the opener is still at work."""
        intention = {name: getattr(self._intention, name) for name in Intention.__slots__}
        intention["beat"] = time.clock_gettime_ns(_COARSE_CLOCK)
        replace_file(self._path, json.dumps(intention).encode())
        return self

    def withdraw(self) -> None:
        """Forget the intention, since it has been fulfilled or has come to nothing."""
        self._file.remove()
