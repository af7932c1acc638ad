"""The plugin on a unix socket, and a client that speaks as the engine does."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.common.archive.limits import ArchiveLimits
from services.common.unix_socket import listen
from services.graphdriver.factory import DriverFactory
from services.graphdriver.plugin.handlers import build_app
from services.graphdriver.plugin.server import serve
from services.graphdriver.plugin.session import Session
from services.graphdriver.settings import GraphDriverSettings
from services.node.metrics import NodeMetrics, Outcome
from tests.support.engine_client import EngineClient
from tests.support.metrics import samples


class Plugin:
    """One process's worth of the plugin."""

    def __init__(self, session: Session, socket: Path, metrics: NodeMetrics) -> None:
        self.session = session
        self.socket = socket
        self._metrics = metrics

    def counted(self, method: str) -> dict[str, float]:
        """Return how often an operation has ended how."""
        values = samples(self._metrics.render(None).decode())
        found = {
            outcome: values.get(f'thin_node_operations_total{{method="{method}",outcome="{outcome}"}}', 0)
            for outcome in Outcome
        }
        return {outcome: count for outcome, count in found.items() if count}

    @asynccontextmanager
    async def client(self) -> AsyncIterator[EngineClient]:
        """Connect as the engine does."""
        async with EngineClient.connected(self.socket) as client:
            yield client

    async def call(self, operation: str, **fields: object) -> Any:  # noqa: ANN401 - a JSON document
        """Call an operation over a connection of its own; it must succeed."""
        async with self.client() as client:
            answer = await client.call(f"/GraphDriver.{operation}", fields)
        assert answer.status == 200, answer
        document = json.loads(answer.body)
        assert not document.get("Err"), document
        return document


class Plugins:
    """Starts plugins that remember what the ones before them knew."""

    def __init__(self, settings: GraphDriverSettings, directory: Path) -> None:
        self._factory = DriverFactory(settings=settings, limits=ArchiveLimits(), store=None)
        self._directory = directory

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Plugin]:
        """Run a plugin."""
        session = Session(state=self._directory / "state", factory=self._factory)
        await session.restore()
        socket = self._directory / "cvmfs.sock"
        async with serve(build_app(session, self._factory.metrics), listen(socket, setting="GRAPHDRIVER_SOCKET")):
            yield Plugin(session, socket, self._factory.metrics)


@pytest.fixture
def plugins(
    tmp_path: Path,
    cvmfs_root: Path,
    mounting: None,  # noqa: ARG001 - ends after this
) -> Plugins:
    settings = GraphDriverSettings(
        repositories=("test.example.org",), cvmfs_root=cvmfs_root, publish_wait=0, lookup_timeout=4
    )
    return Plugins(settings, tmp_path)


@pytest.fixture
async def bare(plugins: Plugins) -> AsyncIterator[Plugin]:
    """A plugin that has not been initialised."""
    async with plugins.running() as plugin:
        yield plugin


@pytest.fixture
async def plugin(plugins: Plugins, home: Path) -> AsyncIterator[Plugin]:
    """A plugin that serves an engine."""
    async with plugins.running() as plugin:
        await plugin.call("Init", Home=str(home))
        yield plugin
        await plugin.session.driver.shut_down()
