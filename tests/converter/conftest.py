"""A registry of plain HTTP for the tests of the converter's process."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.registries import RegistryServer


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def registry(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RegistryServer]:
    """A registry; each test has a repository of its own in it."""
    async with RegistryServer.run(tmp_path_factory.mktemp("registry") / "server") as server:
        yield server
