"""The one place that talks to the `cvmfs_server` program.

Every call has a time-out, after which it is asked to end, and killed where that does not help. What it wrote goes to
the log, and its end to the error. What the program does is described in its own source (CernVM-FS,
cvmfs/server/*.sh) and was measured with version 2.12.
"""

import os
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from services.common.repository_name import RepositoryName
from services.repository.cvmfs_server.program import run_program
from services.repository.errors import RepositoryError

__all__ = ["CvmfsServer", "ToolTimeouts"]

_log = structlog.get_logger(__name__)

_PROGRAM: Final = "cvmfs_server"
_QUERY_TIMEOUT: Final = 120
"""Seconds that `info` may take: it looks at the repository over HTTP."""
_STOPPING: Final = 780
"""Seconds that what changes the repository may go on for when the publisher is told to stop. With what it takes to end
it after that, it is less than the fifteen minutes of the service's unit (TimeoutStopSec)."""
_QUERY_STOPPING: Final = 1
"""Seconds that a query may go on for then."""
_SHOWN_OUTPUT: Final = 1500
"""Characters of the output that an error shows, from its end."""
_LOGGED_OUTPUT: Final = 6000
"""Characters that the log shows."""
_EXPIRED: Final = "Whitelist is expired"
_VALID = re.compile(r"Whitelist is valid for another (\d{1,6}) days")
"""What `cvmfs_server info` prints, in the shell's version and in the one written in C++."""
_STACK = re.compile(r"stack ?trace:|\S*(\(.*\))? ?\[0x[0-9a-f]+\]", re.IGNORECASE)
"""A line of the stack that the program shows with an error, as backtrace_symbols(3) writes it."""
_MESSAGE = re.compile(r"[A-Za-z0-9._-]{1,100}")
"""The program puts the message into a shell command without quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolTimeouts:
    """Longest times that calls may take, in seconds."""

    transaction: float
    publish: float
    abort: float


class CvmfsServer:
    """Calls for one repository.

    Parameters
    ----------
    repository
        Its name.
    timeouts
        Longest times of the calls.
    record_process
        Told which process works on the transaction, and None when it has ended, so that a publisher that is started
        after a kill can wait for it.
    """

    def __init__(
        self,
        *,
        repository: RepositoryName,
        timeouts: ToolTimeouts,
        record_process: Callable[[str | None], Awaitable[None]],
    ) -> None:
        self._repository = repository
        self._timeouts = timeouts
        self._record_process = record_process

    async def transaction(self, *, flag: Path, marker: Path, token: str) -> None:
        """Open a transaction, claim it, and leave the token in it, even if this process is killed meanwhile.

        Parameters
        ----------
        flag
            What the program marks an open transaction by.
        marker
            File in the transaction that is to hold the token.
        token
            Names the transaction.

        Raises
        ------
        RepositoryError
            None could be opened, or the time was up, in which case it is not known.
        """
        opener = [sys.executable, "-m", "services.repository.cvmfs_server.opener", str(os.getpid())]
        opener += [str(flag), str(marker), token]
        await self._change([*opener, _PROGRAM, "transaction", self._repository], self._timeouts.transaction)

    async def publish(self, message: str) -> None:
        """Publish the open transaction.

        Raises
        ------
        RepositoryError
            It failed; the transaction may still be open.
        """
        if not _MESSAGE.fullmatch(message):
            raise RepositoryError(f"not a message that cvmfs_server takes: {message!r}")
        await self._change([_PROGRAM, "publish", "-f", "-m", message, self._repository], self._timeouts.publish)

    async def abort(self) -> str:
        """Drop the open transaction, and return what the program says.

        Raises
        ------
        RepositoryError
            It failed. That it did not says little: see `services.repository.cvmfs_server.repository`.
        """
        return _end(await self._change([_PROGRAM, "abort", "-f", self._repository], self._timeouts.abort))

    async def check_whitelist(self) -> None:
        """Make sure that the program can read the storage, and that what is published would be trusted.

        Raises
        ------
        RepositoryError
            It cannot, or would not.
        """
        # What the program mounts while it cannot read the storage is based on no revision.
        if await self._valid_days() is None:
            raise RepositoryError(
                f"cvmfs_server calls the repository whitelist expired: cvmfs_server resign {self._repository}"
            )

    async def mount(self) -> None:
        """Mount what is not mounted as it should be; nothing is done where all is.

        Raises
        ------
        RepositoryError
            It cannot be mounted; the text says what the program says of it.
        """
        await self._change([_PROGRAM, "mount", self._repository], self._timeouts.transaction)

    async def whitelist_days(self) -> int:
        """Return for how many whole days the whitelist is valid; 0 if it is not any more.

        Raises
        ------
        RepositoryError
            The program does not tell.
        """
        return await self._valid_days() or 0

    async def _valid_days(self) -> int | None:
        """Return for how many whole days the whitelist is valid; None if it is not any more."""
        output = await self._query("info")
        if _EXPIRED in output:
            return None
        match = _VALID.search(output)
        if match is None:
            raise RepositoryError(f"cvmfs_server info says nothing of the whitelist: {_end(output)}")
        return int(match[1])

    async def _query(self, command: str) -> str:
        return await self._run([_PROGRAM, command, self._repository], _QUERY_TIMEOUT, _QUERY_STOPPING, started=_forget)

    async def _change(self, argv: Sequence[str], timeout: float) -> str:  # noqa: ASYNC109 - enforced by ending it
        try:
            return await self._run(argv, timeout, _STOPPING, started=self._record_process)
        finally:
            await self._record_process(None)

    async def _run(
        self,
        argv: Sequence[str],
        timeout: float,  # noqa: ASYNC109 - enforced by ending it
        patience: float,
        *,
        started: Callable[[str | None], Awaitable[None]],
    ) -> str:
        name = " ".join(argv[argv.index(_PROGRAM) :])
        try:
            ended = await run_program(argv, timeout=timeout, patience=patience, started=started)
        except OSError as error:
            raise RepositoryError(f"{name} cannot be started: {error.strerror}") from error
        shown = _end(ended.output)
        _log.info("cvmfs_server", command=name, status=ended.status, output=ended.output[-_LOGGED_OUTPUT:].strip())
        if ended.status is None:
            raise RepositoryError(f"{name} took longer than {timeout:g} s and was killed: {shown}")
        if ended.status != 0:
            raise RepositoryError(f"{name} failed with status {ended.status}: {shown}")
        return ended.output


async def _forget(_process: str | None) -> None:
    """Remember nothing of a program that changes nothing."""


def _end(text: str) -> str:
    """Return the end of what the program says, without the stacks of its exceptions, which the log has."""
    text = "\n".join(line for line in text.splitlines() if not _STACK.fullmatch(line.strip())).strip()
    return text if len(text) <= _SHOWN_OUTPUT else f"... {text[-_SHOWN_OUTPUT:]}"
