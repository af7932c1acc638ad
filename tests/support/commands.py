"""The suite's commands as their users run them."""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.fork_server import FORKS

__all__ = ["Ended", "docker2cvmfs", "run_module", "started_docker2cvmfs"]


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    status: int
    out: bytes
    errors: str


async def run_module(module: str, *arguments: object, env: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end, whatever it comes to."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *map(str, arguments)),
        env={**os.environ, **(env or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await program.communicate()
    return Ended(program.returncode or 0, out, errors.decode())


async def docker2cvmfs(*arguments: object, env: Mapping[str, str] | None = None) -> Ended:
    """Run a command of `docker2cvmfs` to its end, in a process that has been loaded; other tests start it."""
    with tempfile.TemporaryDirectory() as directory:
        out, errors = Path(directory, "out"), Path(directory, "errors")
        words, environment = tuple(map(str, arguments)), {**os.environ, **(env or {})}
        program = await FORKS.start("services.docker2cvmfs", words, env=environment, output=out, errors=errors)
        try:
            status = await program.wait()
        finally:
            if program.returncode is None:
                program.kill()
        return Ended(status, out.read_bytes(), errors.read_text())


@asynccontextmanager
async def started_docker2cvmfs(
    *arguments: object, env: Mapping[str, str] | None = None, terminal: int = asyncio.subprocess.PIPE
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a command of the converter; if it has not ended at the end of the context it is killed.

    Parameters
    ----------
    terminal
        What its standard error output is.
    """
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.docker2cvmfs", *map(str, arguments)),
        env={**os.environ, **(env or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=terminal,
    )
    try:
        yield program
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
