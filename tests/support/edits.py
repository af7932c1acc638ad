"""Changes to a container's file system, made from outside, so that every storage driver gets exactly the same."""

import sys

from harness.commands import run

__all__ = ["make_edits"]


async def make_edits(pid: int) -> None:
    """Make the demonstration's changes, with an empty large file, in the container whose first process is this one."""
    await run(sys.executable, "-m", "harness.demo.playground", str(pid), "new", "0")
