"""Registries and images that the tests of the client share."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.registry.client import RegistryClient
from tests.support.oci import write_image
from tests.support.registries import RegistryServer, impatient
from tests.support.tars import archive, member

LAYERS = (
    archive(member(b"base", b"b" * 300_000)),
    archive(),
    archive(member(b"dir/.wh.gone"), member(b"other", b"o" * 5_000)),
    archive(),
    archive(member(b"base", b"b" * 300_000)),
)
"""Layers with a whiteout, empty ones, and the same one twice."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def registry(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RegistryServer]:
    """A registry of plain HTTP, with the image `layers:1` in it."""
    directory = tmp_path_factory.mktemp("registry")
    write_image(directory / "image", LAYERS, tag="1")
    async with RegistryServer.run(directory / "server") as server:
        await server.push(f"oci:{directory / 'image'}:1", "layers:1", "--preserve-digests")
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def client() -> AsyncIterator[RegistryClient]:
    """A client of registries of plain HTTP."""
    async with RegistryClient(options=impatient()) as client:
        yield client
