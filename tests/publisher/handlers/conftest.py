"""A publisher's HTTP interface in this process; nothing is fetched or published."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import HttpUrl, SecretStr

from services.common.archive.limits import ArchiveLimits
from services.common.object_store.settings import ObjectStoreSettings
from services.publisher.factory import build_publisher
from services.publisher.settings import PublisherSettings
from tests.support.publisher import REPOSITORY, TOKEN
from tests.support.registries import impatient

Client = TestClient[Any, Any]


def settings_below(directory: Path) -> PublisherSettings:
    """Settings of a publisher to a directory."""
    return PublisherSettings(
        repository=REPOSITORY,
        directory=directory / "repository",
        state=directory / "state",
        spool=directory / "spool",
        event_token=SecretStr(TOKEN),
    )


UNREACHABLE = ObjectStoreSettings(
    endpoint=HttpUrl("http://127.0.0.1:9"),
    access_key=SecretStr("key"),
    secret_key=SecretStr("secret"),
    retry_seconds=0.01,
)
"""A store that is out of reach."""


@asynccontextmanager
async def serving(settings: PublisherSettings) -> AsyncIterator[Client]:
    """Serve a publisher whose store is out of reach."""
    async with (
        build_publisher(settings, UNREACHABLE, ArchiveLimits(), impatient()) as publisher,
        TestClient(TestServer(publisher.app)) as client,
    ):
        yield client


@pytest.fixture
def settings(tmp_path: Path) -> PublisherSettings:
    """Settings of a publisher to a directory."""
    return settings_below(tmp_path)


@pytest.fixture
async def client(settings: PublisherSettings) -> AsyncIterator[Client]:
    """A client of a publisher whose store is out of reach."""
    async with serving(settings) as client:
        yield client
