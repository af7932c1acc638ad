"""The end of programs that a service starts."""

import asyncio
import contextlib
import os
import signal

__all__ = ["end_group"]


async def end_group(process: asyncio.subprocess.Process) -> None:
    """Kill a program that is still running, with its process group, and wait until it has ended.

    The wait is short only if the program's standard streams are no pipes of asyncio's, which takes a program for
    running until they have come to their ends, and somebody whom it has started may prevent that.

    Parameters
    ----------
    process
        The leader of its group: it was started with `start_new_session`.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
