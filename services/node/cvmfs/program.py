"""Running the CVMFS client's programs."""

import asyncio
import os
import tempfile
from typing import Final

from services.common.processes import end_group
from services.node.errors import RepositoryError

__all__ = ["run"]

_OUTPUT_LIMIT: Final = 2000
"""Bytes of a program's output that an error quotes."""


async def run(*argv: str, timeout: float, what: str) -> str:  # noqa: ASYNC109 - the time-out names what it cut short
    """Run a program to its end; return the end of what it says.

    Parameters
    ----------
    argv
        The program and its arguments.
    timeout
        Longest time that it may take, in seconds; then it is killed.
    what
        What it does, for the error.

    Raises
    ------
    RepositoryError
        It cannot be run, fails, or takes too long.
    """
    # A file, not a pipe: the client goes on in the background and keeps its output open.
    with tempfile.TemporaryFile() as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        except OSError as error:
            raise RepositoryError(f"{what}: cannot run {argv[0]}: {error.strerror}") from error
        try:
            # Not wait_for: of Python 3.11, it forgets a cancellation that comes as the program ends.
            async with asyncio.timeout(timeout):
                status = await process.wait()
        except TimeoutError:
            raise RepositoryError(f"{what}: {argv[0]} did not end within {timeout:g} s") from None
        finally:
            await end_group(process)
        output.seek(-min(output.seek(0, os.SEEK_END), _OUTPUT_LIMIT), os.SEEK_END)
        text = output.read().decode(errors="replace").strip() or "no output"
        if status != 0:
            raise RepositoryError(f"{what}: {argv[0]} ended with status {status}: {text}")
        return text
