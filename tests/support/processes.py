"""Whether processes run."""

import asyncio
from pathlib import Path

__all__ = ["ended", "runs"]


def runs(process: int) -> bool:
    """Return whether there is such a process, and it is not only waiting to be collected."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def ended(process: int) -> None:
    """Wait until a process has ended."""
    async with asyncio.timeout(120):
        while runs(process):  # noqa: ASYNC110 - it ends by itself
            await asyncio.sleep(0.005)
