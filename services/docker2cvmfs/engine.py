"""The Docker engine that an image is loaded into, through the `docker` command: it knows contexts and DOCKER_HOST."""

import asyncio
import os
from typing import BinaryIO, Final

from services.common.processes import end_group
from services.docker2cvmfs.errors import EngineError

__all__ = ["load"]

_PATIENCE: Final = 300
_QUOTED: Final = 2000
"""Bytes of what the command says that an error quotes."""


async def load(archive: bytes, *, patience: float = _PATIENCE) -> None:
    """Load a docker archive.

    Parameters
    ----------
    archive
        Its content, which is small: that of a thin image.
    patience
        Seconds after which the command is killed.

    Raises
    ------
    EngineError
        There is no engine, or it refuses.
    """
    # Files in memory, not pipes: asyncio takes a program for running until its pipes have come to their ends, which
    # somebody whom it has left behind may prevent.
    with _memory() as source, _memory() as said:
        source.write(archive)
        source.seek(0)
        try:
            program = await asyncio.create_subprocess_exec(
                *("docker", "load", "--quiet"),
                stdin=source,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(
                f"cannot run docker: {error.strerror}: install Docker's command line, or use --output"
            ) from None
        try:
            async with asyncio.timeout(patience):
                await program.wait()
        except TimeoutError:
            raise EngineError(f"docker load did not end within {patience:g} s: does the engine answer?") from None
        finally:
            await end_group(program)
        if program.returncode:
            said.seek(0)
            raise EngineError(f"docker load failed: {said.read(_QUOTED).decode(errors='replace').strip()}")


def _memory() -> BinaryIO:
    return os.fdopen(os.memfd_create("docker-load"), "w+b")
