"""The one place that talks to the `cvmfs_server` program.

Every call has a time-out, after which it is killed. What it wrote goes to the log, and its end to the error. What the
program does is described in its own source (CernVM-FS, cvmfs/server/*.sh) and was measured with version 2.12.
"""

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
"""Seconds that `list` and `info` may take: they look at repositories over HTTP."""
_SHOWN_OUTPUT: Final = 1500
"""Characters of the output that an error shows, from its end."""
_EXPIRED_LISTED: Final = "whitelist expired"
_UNREACHABLE: Final = "whitelist unreachable"
"""In the list: the web server of the storage does not give it."""
_UNHEALTHY: Final = "unhealthy"
"""In the list: not mounted, or not as it should be by whether it is in a transaction."""
_IN_TRANSACTION: Final = "in transaction"
_EXPIRED: Final = "Whitelist is expired"
_VALID = re.compile(r"Whitelist is valid for another (\d{1,6}) days")
"""What `cvmfs_server info` prints, in the shell's version and in the one written in C++."""
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
        opener = [sys.executable, "-m", "services.repository.cvmfs_server.opener", str(flag), str(marker), token]
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

    async def make_fit(self) -> None:
        """Make sure that the program works and the repository can be published to; mount what is not mounted.

        Raises
        ------
        RepositoryError
            It cannot; the text says what the program says of it.
        """
        condition = await self._condition()
        # What the program mounts while it cannot read the storage is based on no revision.
        for problem in (_EXPIRED_LISTED, _UNREACHABLE):
            if problem in condition:
                raise RepositoryError(f"cvmfs_server calls the repository {problem}: {condition}")
        if _IN_TRANSACTION in condition:
            return  # somebody's, whose mounts are their own affair
        if _UNHEALTHY in condition:
            await self._run([_PROGRAM, "mount", self._repository], self._timeouts.transaction, started=_forget)
            condition = await self._condition()
            if _UNHEALTHY in condition:
                raise RepositoryError(f"cvmfs_server calls the repository {_UNHEALTHY}: {condition}")

    async def _condition(self) -> str:
        """Return what the program lists of the repository."""
        output = await self._run([_PROGRAM, "list"], _QUERY_TIMEOUT, started=_forget)
        for line in output.splitlines():
            if line.startswith(f"{self._repository} (stratum0 "):
                return line.strip()
            if line.startswith(f"{self._repository} ("):
                raise RepositoryError(f"repository {self._repository} is not published from here: {line.strip()}")
        raise RepositoryError(f"cvmfs_server knows no repository {self._repository}; it lists: {_end(output)}")

    async def whitelist_days(self) -> int:
        """Return for how many whole days the whitelist is valid; 0 if it is not any more.

        Raises
        ------
        RepositoryError
            The program does not tell.
        """
        output = await self._run([_PROGRAM, "info", self._repository], _QUERY_TIMEOUT, started=_forget)
        if _EXPIRED in output:
            return 0
        match = _VALID.search(output)
        if match is None:
            raise RepositoryError(f"cvmfs_server info says nothing of the whitelist: {_end(output)}")
        return int(match[1])

    async def _change(self, argv: Sequence[str], timeout: float) -> str:  # noqa: ASYNC109 - enforced by killing
        try:
            return await self._run(argv, timeout, started=self._record_process)
        finally:
            await self._record_process(None)

    async def _run(
        self,
        argv: Sequence[str],
        timeout: float,  # noqa: ASYNC109 - enforced by killing
        *,
        started: Callable[[str | None], Awaitable[None]],
    ) -> str:
        name = " ".join(argv[argv.index(_PROGRAM) :])
        try:
            ended = await run_program(argv, timeout=timeout, started=started)
        except OSError as error:
            raise RepositoryError(f"{name} cannot be started: {error.strerror}") from error
        shown = _end(ended.output)
        _log.info("cvmfs_server", command=name, status=ended.status, output=shown)
        if ended.status is None:
            raise RepositoryError(f"{name} took longer than {timeout:g} s and was killed: {shown}")
        if ended.status != 0:
            raise RepositoryError(f"{name} failed with status {ended.status}: {shown}")
        return ended.output


async def _forget(_process: str | None) -> None:
    """Remember nothing of a program that changes nothing."""


def _end(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _SHOWN_OUTPUT else f"... {text[-_SHOWN_OUTPUT:]}"
