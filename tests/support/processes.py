"""Which processes run."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Container
from pathlib import Path

__all__ = ["command_lines", "end_all_of", "ended", "runs"]


def command_lines() -> dict[int, bytes]:
    """Return the command lines of all processes, with zeros between the words; any of them may have ended by now."""
    lines = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lines[int(entry.name)] = (entry / "cmdline").read_bytes()
    return lines


def runs(process: int) -> bool:
    """Return whether there is such a process, and it is not only waiting to be collected."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def ended(process: int) -> None:
    """Wait until a process has ended."""
    async with asyncio.timeout(300):
        while runs(process):  # noqa: ASYNC110 - it ends by itself
            await asyncio.sleep(0.005)


def end_all_of(users: Container[int]) -> None:
    """Kill every process of some users, and wait until all are gone, with those that they start meanwhile.

    Parameters
    ----------
    users
        The users' ids.

    Raises
    ------
    TimeoutError
        Some still run after a minute.
    """
    deadline = time.monotonic() + 60
    while found := [process for process in command_lines() if runs(process) and _user_of(process) in users]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"still running: {found}")
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.005)


def _user_of(process: int) -> int | None:
    """Return the real user id of a process; None if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("Uid:"))
