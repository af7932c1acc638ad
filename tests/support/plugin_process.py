"""The plugin as a process, and the engine's calls of it."""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.processes import Service
from tests.support.engine_client import EngineClient

__all__ = ["PluginProcess"]


class PluginProcess:
    """A process of the plugin that keeps all it has below one directory.

    Parameters
    ----------
    directory
        That directory.
    settings
        Settings beside those that say where things are.
    """

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None) -> None:
        # Paths of sockets are short, hence not below the directory of a test.
        self.socket = Path(f"/run/test-{zlib.crc32(os.fsencode(directory)):08x}/cvmfs.sock")
        self.home = directory / "docker/cvmfs"
        self.environment = {
            "GRAPHDRIVER_SOCKET": str(self.socket),
            "GRAPHDRIVER_STATE": str(directory / "state"),
            "GRAPHDRIVER_CVMFS_ROOT": str(directory / "cvmfs"),
            "GRAPHDRIVER_REPOSITORIES": "test.example.org",
            "GRAPHDRIVER_LOG_FORMAT": "json",
            **(settings or {}),
        }
        self.daemon = Service(
            "graphdriver", "services.graphdriver", log=directory / "graphdriver.log", env=self.environment
        )

    async def start(self) -> None:
        """Start it and wait until it answers."""

        async def listens() -> bool:
            try:
                async with EngineClient.connected(self.socket) as client:
                    return (await client.call("/Plugin.Activate")).status == 200
            except (FileNotFoundError, ConnectionRefusedError):
                return False

        await self.daemon.start(listens)

    async def call(self, operation: str, **fields: object) -> Any:  # noqa: ANN401 - a JSON document
        """Call an operation over a connection of its own; it must succeed."""
        return json.loads(await self.call_for_bytes(operation, **fields))

    async def call_for_bytes(self, operation: str, **fields: object) -> bytes:
        """Call an operation that answers something else than JSON, as `call` does."""
        async with EngineClient.connected(self.socket) as client:
            answer = await client.call(f"/GraphDriver.{operation}", fields)
        assert answer.status == 200, answer
        return answer.body
