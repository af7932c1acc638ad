"""The converter, which keeps a repository as one wish list has it, and is told by a registry what is pushed."""

import asyncio
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from harness.http import answers
from harness.ports import free_ports
from harness.processes import Service
from harness.registry import Registry
from harness.stratum0 import Stratum0

__all__ = ["Converter"]

_ENDPOINT: Final = "registry"


class Converter:
    """`converter run` with a directory of its own.

    Parameters
    ----------
    directory
        What does not exist yet, and gets everything that it keeps and logs.
    stratum0
        Whose repository it keeps up to date; its publisher must speak plain HTTP to the registry.
    registry
        Where images are; it does not run yet, and will announce what is pushed.
    settings
        Further settings.
    """

    def __init__(
        self, *, directory: Path, stratum0: Stratum0, registry: Registry, settings: Mapping[str, str] | None = None
    ) -> None:
        (self._port,) = free_ports(1)
        self._directory = directory
        self._registry = registry.address
        self._secret = secrets.token_urlsafe(24)
        registry.announce_to(f"{self.url}/v1/hints/{_ENDPOINT}", self._secret)
        self.daemon = Service(
            "converter",
            "services.converter",
            "run",
            log=directory / "converter.log",
            env={
                "CONVERTER_WISH_LISTS": str(directory / "wish-list.yaml"),
                "CONVERTER_PUBLISHERS": f"{stratum0.repository}={stratum0.url}",
                "CONVERTER_PUBLISHER_TOKEN": stratum0.token,
                "CONVERTER_HINTS_ENDPOINTS": str(directory / "endpoints.yaml"),
                "CONVERTER_STATE": str(directory / "state"),
                "CONVERTER_PORT": str(self._port),
                "REGISTRY_PLAIN_HTTP": registry.address,
                **(settings or {}),
            },
        )

    @property
    def url(self) -> str:
        """URL that it serves."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self, wish_list: str) -> None:
        """Start it with a wish list, as YAML, and wait until it serves.

        Raises
        ------
        DaemonError
            It ended, or was not ready in time.
        """
        await asyncio.to_thread(self._write, wish_list)
        await self.daemon.start(lambda: answers(f"{self.url}/healthz"))

    async def close(self) -> None:
        """End it."""
        await self.daemon.stop()

    def _write(self, wish_list: str) -> None:
        self._directory.mkdir(parents=True)
        (self._directory / "wish-list.yaml").write_text(wish_list)
        endpoint = {"name": _ENDPOINT, "kind": "distribution", "registry": self._registry, "secret": self._secret}
        (self._directory / "endpoints.yaml").write_text(json.dumps({"endpoints": [endpoint]}))
