"""A converter's rounds on the registry of the tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.support.converter import Rig
from tests.support.image_publisher import ImagePublisher


@pytest_asyncio.fixture(loop_scope="session")
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """What rounds need."""
    async with ImagePublisher.run() as publisher:
        yield Rig(directory=tmp_path, publisher=publisher)
