"""A publisher's HTTP interface in this process; nothing is fetched or published."""

import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import HttpUrl, SecretStr

from services.common.archive.limits import ArchiveLimits
from services.common.object_store.settings import ObjectStoreSettings
from services.publisher.factory import build_publisher
from services.publisher.journal.sqlite import SqliteDatabase
from services.publisher.settings import PublisherSettings
from tests.support.notifications import ceph_event
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


LAYER = "a" * 64
"""A layer that "two" works on."""
IMAGE = "quay.io/ns/tool:v1"
"""An image that "two" works on."""


@asynccontextmanager
async def serving_one_of_several(directory: Path) -> AsyncIterator[Client]:
    """Serve "one" of the publishers of a journal: "two" leads, "three" has ended, and "four" has gone."""
    settings = settings_below(directory).model_copy(update={"name": "one"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqliteDatabase, "shared", True)  # as others are, which take a server
        async with serving(settings) as client:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            await client.post("/v1/events", data=ceph_event("layers", f"sha256/{LAYER}"), headers=headers)
            await client.post("/v1/images", json={"name": IMAGE}, headers=headers)
            now = time.time()
            with closing(sqlite3.connect(settings.state / "journal.sqlite")) as connection, connection:
                connection.executemany(
                    """
                    INSERT INTO publishers (id, name, started_at, seen_at, lease_until, leads, left_at)
                    VALUES (?, ?, ?, ?, ?, ?, ?)
                    """,
                    [
                        ("22", "two", now - 7300, now, now + 1e9, 1, None),
                        ("33", "three", now - 90_000, now - 7300, now - 7290, 0, now - 7300),
                        ("44", "four", now - 90_000, now - 130, now - 120, 1, now - 110),
                    ],
                )
                connection.execute("UPDATE layers SET state = 'publishing', claimed_by = '22'")
                connection.execute("UPDATE images SET state = 'fetching', claimed_by = '22'")
            connection.close()
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
