"""A private Docker registry on the loopback interface, for plain HTTP."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any, Final

from harness.ports import free_ports
from harness.processes import Daemon

__all__ = ["Registry"]

_SENT: Final = re.compile(r'"GET /v2/\S+/(?:blobs|manifests)/\S+ HTTP/1\.1" 200 (\d+) ')
"""What the log has for a request that was answered (Apache's combined format), and the bytes of the answer."""


class Registry:
    """`docker-registry` with a directory of its own.

    Parameters
    ----------
    directory
        What does not exist yet, and gets everything that it keeps.
    """

    def __init__(self, directory: Path) -> None:
        (self._port,) = free_ports(1)
        self.directory = directory
        """What it keeps."""
        self._log = directory / "registry.log"
        configuration = directory / "config.json"
        self._daemon = Daemon("registry", ["docker-registry", "serve", str(configuration)], log=self._log)
        self._settings: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
            "http": {"addr": self.address},
        }
        self._configuration = configuration

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._port}"

    def announce_to(self, url: str, token: str) -> None:
        """Have pushes announced to a webhook, from the next start on.

        Parameters
        ----------
        url
            URL of the webhook.
        token
            What is shown there, as a bearer's.
        """
        endpoint = {
            "name": "converter",
            "url": url,
            "headers": {"Authorization": [f"Bearer {token}"]},
            "timeout": "5s",
            "threshold": 1000,
            "backoff": "100ms",
            "ignore": {"mediatypes": ["application/octet-stream"], "actions": ["pull"]},
        }
        self._settings["notifications"] = {"endpoints": [endpoint]}

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self.directory.mkdir(parents=True)
        self._configuration.write_text(json.dumps(self._settings))
        await self._daemon.start(self._answers)

    def sent(self) -> int:
        """Return how many bytes of blobs and manifests it has sent, by its log (blocking)."""
        return sum(map(int, _SENT.findall(self._log.read_text())))

    async def close(self) -> None:
        """End it."""
        await self._daemon.stop()

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except ConnectionRefusedError:
            return False
        writer.close()
        await writer.wait_closed()
        return True
