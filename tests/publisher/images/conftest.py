"""A registry, and a publisher to a directory that publishes images from it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.image_site import ImagePublisher
from tests.support.registries import RegistryServer


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def registry(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RegistryServer]:
    """A registry of plain HTTP."""
    async with RegistryServer.run(tmp_path_factory.mktemp("registry") / "server") as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def publisher(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ImagePublisher]:
    """A publisher of the module's own."""
    async with ImagePublisher.running(tmp_path_factory.mktemp("publisher")) as publisher:
        yield publisher
