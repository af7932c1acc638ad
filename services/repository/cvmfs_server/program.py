"""Running a program that may hang, write without end, leave daemons behind, and outlive the publisher."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import structlog

from services.repository.cvmfs_server.ending import end_tree, process_gone
from services.repository.cvmfs_server.identity import process_identity

__all__ = ["Ended", "outlive", "run_program"]

_log = structlog.get_logger(__name__)

_KEPT_OUTPUT: Final = 64 << 10
"""Bytes of the output that are kept, from its end."""
_PIPE_SIZE: Final = 1 << 20
"""Bytes that a program can write after its publisher has been killed."""
_DRAIN: Final = 0.2
"""Seconds to wait for the last output of a program that has ended, while a daemon that it has left keeps the pipe."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    status: int | None
    """Its exit status, negative for a signal; None if the time was up and it was ended."""
    output: str
    """The end of what it wrote, to standard output and error."""


async def run_program(
    argv: Sequence[str],
    *,
    timeout: float,  # noqa: ASYNC109 - enforced by ending the program
    patience: float,
    started: Callable[[str | None], Awaitable[None]],
) -> Ended:
    """Run a program to its end, in a session of its own, without standard input.

    Parameters
    ----------
    argv
        Program and arguments.
    timeout
        Seconds until it and what it has started is asked to end, and killed where that does not help.
    patience
        Seconds that it may go on for when the publisher is told to stop. What comes of it shows at the next start.
    started
        Told the identity of its process, for `outlive`.

    Raises
    ------
    OSError
        It cannot be started.
    """
    async with _Output() as output:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output.writer,
            stderr=output.writer,
            # With a reader of its own, its next output does not kill it if the publisher has been killed.
            pass_fds=(output.reader,),
            start_new_session=True,
            cwd="/",
        )
        status: int | None = None
        try:
            await started(process_identity(process.pid))
            async with asyncio.timeout(timeout):
                status = await process.wait()
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await process.wait()
            raise
        finally:
            if process.returncode is None:
                await end_tree(process.pid)
                await process.wait()
        return Ended(status, await output.text())


class _Output:
    """A pipe that is read all the time, and need not come to its end."""

    def __init__(self) -> None:
        self._kept = bytearray()

    async def __aenter__(self) -> Self:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.reader, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        stream = asyncio.StreamReader()
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(self.reader, "rb", buffering=0)
        )
        self._task = asyncio.create_task(self._collect(stream))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close_writer()
        self._task.cancel()
        await asyncio.wait((self._task,))
        self._transport.close()

    async def text(self) -> str:
        """Return the end of what was written."""
        self._close_writer()
        await asyncio.wait((self._task,), timeout=_DRAIN)
        return self._kept.decode(errors="backslashreplace").replace("\0", "\\0")

    def _close_writer(self) -> None:
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    async def _collect(self, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(1 << 16):
            self._kept += chunk
            del self._kept[:-_KEPT_OUTPUT]


async def outlive(identity: str, patience: float) -> None:
    """Wait until a process that an earlier publisher started has ended; end it when the patience is over.

    Parameters
    ----------
    identity
        As `run_program` told it.
    patience
        Seconds.
    """
    pid = int(identity.partition("/")[0])
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if process_identity(pid) == identity:
            await _ended(pid, descriptor, patience)
    finally:
        os.close(descriptor)


async def _ended(pid: int, descriptor: int, patience: float) -> None:
    _log.warning("waiting for a program that an earlier publisher started", pid=pid)
    try:
        async with asyncio.timeout(patience):
            await process_gone(descriptor)
    except TimeoutError:
        _log.error("ending a program that an earlier publisher started", pid=pid, seconds=patience)
        await end_tree(pid)
