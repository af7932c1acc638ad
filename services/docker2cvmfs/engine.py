"""The Docker engine that an image is loaded into, through the `docker` command: it knows contexts and DOCKER_HOST."""

import asyncio
from typing import Final

from services.docker2cvmfs.errors import EngineError

__all__ = ["load"]

_SECONDS: Final = 300


async def load(archive: bytes) -> None:
    """Load a docker archive.

    Raises
    ------
    EngineError
        There is no engine, or it refuses.
    """
    try:
        program = await asyncio.create_subprocess_exec(
            *("docker", "load", "--quiet"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise EngineError(
            f"cannot run docker: {error.strerror}: install Docker's command line, or use --output"
        ) from None
    try:
        async with asyncio.timeout(_SECONDS):
            _, errors = await program.communicate(archive)
    except TimeoutError:
        raise EngineError(f"docker load did not end within {_SECONDS} s: does the engine answer?") from None
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    if program.returncode:
        raise EngineError(f"docker load failed: {errors.decode(errors='replace').strip()[:2000]}")
