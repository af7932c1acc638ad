"""Which processes run."""

import asyncio
import contextlib
from pathlib import Path

__all__ = ["command_lines", "ended", "runs"]


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
