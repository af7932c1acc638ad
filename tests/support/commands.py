"""The suite's commands as their users run them."""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Ended", "docker2cvmfs", "run_module"]


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
    """Run a command of the converter."""
    return await run_module("services.docker2cvmfs", *arguments, env=env)
