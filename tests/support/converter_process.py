"""A converter as a process of its own."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from harness.commands import Completed, run
from harness.ports import free_ports
from harness.processes import Service
from services.common.repository_name import RepositoryName

__all__ = ["ConverterProcess"]


class ConverterProcess:
    """`converter run`, which can be stopped, killed and started again, and `converter once` on the same state.

    Parameters
    ----------
    directory
        Where its state, its wish list and its log are.
    registry
        The registry of plain HTTP that it is allowed to speak to.
    publishers
        The URL of the publisher of each repository.
    token
        What the publishers want to see.
    settings
        Further environment variables; they win.
    """

    def __init__(
        self,
        directory: Path,
        *,
        registry: str,
        publishers: Mapping[RepositoryName, str],
        token: str,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.wishes = directory / "wishes.yaml"
        self.environment = {
            "CONVERTER_STATE": str(directory / "converter"),
            "CONVERTER_PORT": str(self.port),
            "CONVERTER_WISH_LISTS": str(self.wishes),
            "CONVERTER_PUBLISHERS": ",".join(f"{name}={url}" for name, url in publishers.items()),
            "CONVERTER_PUBLISHER_TOKEN": token,
            "CONVERTER_RETRY_FIRST": "0.1",
            "CONVERTER_RETRY_LAST": "1",
            "REGISTRY_PLAIN_HTTP": registry,
            **(settings or {}),
        }
        self.daemon = Service(
            "converter",
            "services.converter",
            "run",
            log=directory / "converter.log",
            env=self.environment,
        )

    async def start(self) -> None:
        """Start it and wait until it answers."""

        async def answers() -> bool:
            try:
                await self.get("/healthz")
            except aiohttp.ClientError:
                return False
            return True

        await self.daemon.start(answers)

    async def get(self, path: str) -> Any:  # noqa: ANN401 - a JSON document, or text
        """Ask it something."""
        async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(self.url + path) as answer:
            return await answer.json() if answer.content_type == "application/json" else await answer.text()

    async def once(self, *options: str, accept: tuple[int, ...] = (0,)) -> Completed:
        """Run `converter once` to its end."""
        command = (sys.executable, "-m", "services.converter", "once", *options)
        return await run(*command, env=self.environment, timeout=300, accept=accept)
