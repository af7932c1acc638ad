"""A registry, and a publisher to a directory that publishes images from it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.image_site import ImagePublisher
from tests.support.registries import RegistryServer


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def registry(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RegistryServer]:
    """A registry of plain HTTP."""
    async with RegistryServer.run(tmp_path_factory.mktemp("registry") / "server") as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def publisher(tmp_path: Path) -> AsyncIterator[ImagePublisher]:
    """A publisher of the test's own."""
    async with ImagePublisher.running(tmp_path / "publisher") as publisher:
        yield publisher
