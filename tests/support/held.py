"""Work that stands still at a known point until it is let go or somebody is killed."""

import asyncio
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from harness.engine import Engine

__all__ = ["HeldImport", "HeldRequest"]


class HeldRequest:
    """An effect for the fault proxy: the body of a request arrives and goes no further until it is let go."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.let_go = asyncio.Event()

    async def __call__(self, _position: int, data: bytes) -> bytes:
        """Hold some bytes."""
        self.arrived.set()
        await self.let_go.wait()
        return data


class HeldImport:
    """`docker import -`: the engine hands a layer to its driver as it comes, where `docker load` spools it first."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def of(cls, engine: Engine, image: str) -> AsyncIterator["HeldImport"]:
        """Start the command; it has ended at the end of the context."""
        environment = {**os.environ, **engine.docker_env}
        process = await asyncio.create_subprocess_exec(
            "docker", "import", "-", image, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment
        )
        try:
            yield cls(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def feed(self, data: bytes) -> None:
        """Send a part of the layer."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    async def end(self) -> tuple[int, str]:
        """Let the command end; return its status and what it says."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        output, complaint = await self._process.communicate()
        return self._process.returncode or 0, (output + complaint).decode()
