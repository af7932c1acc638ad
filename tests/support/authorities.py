"""A private certificate authority, on demand."""

import pytest
import pytest_asyncio

from tests.support.registries import Authority


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A private certificate authority."""
    return await Authority.make(tmp_path_factory.mktemp("authority") / "ca")
