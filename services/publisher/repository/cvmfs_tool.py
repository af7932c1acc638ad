"""The one place that talks to the `cvmfs_server` program.

Every call has a time-out, after which its whole process group is killed. What it wrote goes to the log, and its end to
the error. What the program does is described in its own source (CernVM-FS, cvmfs/server/*.sh) and was measured with
version 2.12.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import structlog

from services.common.repository_name import RepositoryName
from services.publisher.errors import RepositoryError

__all__ = ["CvmfsServer", "ToolTimeouts", "outlive", "process_identity"]

_log = structlog.get_logger(__name__)

_PROGRAM: Final = "cvmfs_server"
_KEPT_OUTPUT: Final = 64 << 10
"""Bytes of a call's output that are kept, from its end; a program gone wild can write without end."""
_SHOWN_OUTPUT: Final = 1500
"""Characters of it that an error shows, from its end."""
_QUERY_TIMEOUT: Final = 120
"""Seconds that `list` may take: it looks at every repository of the machine, over HTTP."""
_DRAIN: Final = 1
"""Seconds to wait for the last output of a program that has ended."""
_GRACE: Final = 5
"""Seconds that a program may go on for when the publisher is told to stop."""
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

    async def transaction(self, *, marker: Path, token: str) -> None:
        """Open a transaction and leave the token in a marker file inside it, even if this process is killed meanwhile.

        Raises
        ------
        RepositoryError
            None could be opened, or the time was up, in which case it is not known.
        """
        opener = [sys.executable, "-m", "services.publisher.repository.cvmfs_opener", str(marker), token]
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

    async def abort(self) -> None:
        """Drop the open transaction.

        Raises
        ------
        RepositoryError
            It failed.
        """
        await self._change([_PROGRAM, "abort", "-f", self._repository], self._timeouts.abort)

    async def check(self) -> None:
        """Make sure that the program works and the repository is fit to be published to.

        Raises
        ------
        RepositoryError
            It is not; the text says what the program says of it.
        """
        output = await self._run([_PROGRAM, "list"], _QUERY_TIMEOUT, started=None)
        for line in output.splitlines():
            if line.startswith(f"{self._repository} ("):
                break
        else:
            raise RepositoryError(f"cvmfs_server knows no repository {self._repository}; it lists: {_end(output)}")
        for problem in ("whitelist expired", "unhealthy"):
            if problem in line:
                raise RepositoryError(f"cvmfs_server calls the repository {problem}: {line.strip()}")

    async def _change(self, argv: Sequence[str], timeout: float) -> None:  # noqa: ASYNC109 - enforced by killing
        try:
            await self._run(argv, timeout, started=self._record_process)
        finally:
            await self._record_process(None)

    async def _run(
        self,
        argv: Sequence[str],
        timeout: float,  # noqa: ASYNC109 - enforced by killing
        *,
        started: Callable[[str | None], Awaitable[None]] | None,
    ) -> str:
        name = " ".join(argv[argv.index(_PROGRAM) :])
        async with _Output() as output:
            try:
                # Its own session, so that it outlives a publisher that is killed, and can be killed as a whole.
                process = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output.writer,
                    stderr=output.writer,
                    start_new_session=True,
                    cwd="/",
                )
            except OSError as error:
                raise RepositoryError(f"{name} cannot be started: {error.strerror}") from error
            try:
                if started is not None:
                    await started(process_identity(process.pid))
                async with asyncio.timeout(timeout):
                    status = await process.wait()
            except asyncio.CancelledError:
                with contextlib.suppress(TimeoutError):
                    # A publish that is nearly done is worth a moment; what comes of it shows at the next start.
                    await asyncio.wait_for(process.wait(), _GRACE)
                raise
            except TimeoutError:
                raise RepositoryError(
                    f"{name} took longer than {timeout:g} s and was killed: {await output.end()}"
                ) from None
            finally:
                await _kill(process)
            text = await output.text()
        _log.info("cvmfs_server", command=name, status=status, output=_end(text))
        if status != 0:
            raise RepositoryError(f"{name} failed with status {status}: {_end(text)}")
        return text


class _Output:
    """What a call writes, through a pipe that need not come to its end: a daemon that it leaves may keep it open."""

    def __init__(self) -> None:
        self._kept = bytearray()

    async def __aenter__(self) -> Self:
        read, self.writer = os.pipe()
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        self._transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", buffering=0)
        )
        self._task = asyncio.create_task(self._collect(reader))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close_writer()
        self._task.cancel()
        await asyncio.wait((self._task,))
        self._transport.close()

    async def text(self) -> str:
        """Return the last of what was written, once the program has ended."""
        self._close_writer()
        await asyncio.wait((self._task,), timeout=_DRAIN)
        return self._kept.decode(errors="backslashreplace").replace("\0", "\\0")

    async def end(self) -> str:
        """Return as much as an error shows."""
        return _end(await self.text())

    def _close_writer(self) -> None:
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    async def _collect(self, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(1 << 16):
            self._kept += chunk
            del self._kept[:-_KEPT_OUTPUT]


def process_identity(pid: int) -> str | None:
    """Name a living process so that no later one of the same number is taken for it; nothing if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
            fields = file.read().rpartition(")")[2].split()
    except FileNotFoundError:
        return None
    state, start_time = fields[0], fields[19]
    return None if state in "ZX" else f"{pid}/{start_time}"


async def outlive(identity: str, patience: float) -> None:
    """Wait until a process that an earlier publisher started has ended; kill it when the patience is over.

    Parameters
    ----------
    identity
        As it was given to `record_process`.
    patience
        Seconds.
    """
    pid = int(identity.partition("/")[0])
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if process_identity(pid) != identity:
            return
        _log.warning("waiting for a program that an earlier publisher started", pid=pid)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, ended.set)
        try:
            await asyncio.wait_for(ended.wait(), patience)
        except TimeoutError:
            _log.error("killing a program that an earlier publisher started", pid=pid, seconds=patience)
            os.killpg(pid, signal.SIGKILL)
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
    finally:
        os.close(descriptor)


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End what is left of a call: the program itself, or what it has left running."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _end(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _SHOWN_OUTPUT else f"... {text[-_SHOWN_OUTPUT:]}"
