"""A registry, and a converter's rounds on it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.converter import Rig
from tests.support.image_publisher import ImagePublisher
from tests.support.registries import RegistryServer


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def registry(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RegistryServer]:
    """A registry of plain HTTP; each test has a repository of its own in it."""
    async with RegistryServer.run(tmp_path_factory.mktemp("registry") / "server") as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """What rounds need."""
    async with ImagePublisher.run() as publisher:
        yield Rig(directory=tmp_path, publisher=publisher)
