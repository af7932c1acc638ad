"""Health, readiness and metrics."""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from services.common.archive.limits import ArchiveLimits
from services.common.repository_name import RepositoryName
from services.publisher.errors import JournalError
from services.publisher.factory import build_publisher
from services.publisher.handlers import health
from services.publisher.settings import PublisherSettings, RepositoryKind
from services.publisher.status.model import PublisherStatus
from services.publisher.status.reader import StatusReader
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.trust.keyring import KeyFiles
from tests.publisher.handlers.conftest import UNREACHABLE
from tests.support.publisher import REPOSITORY, TOKEN
from tests.support.registries import impatient

Client = TestClient[Any, Any]


async def test_it_lives_even_if_it_is_not_ready(client: Client) -> None:
    response = await client.get("/healthz")
    assert (response.status, await response.json()) == (200, {"status": "alive"})


async def test_what_is_not_ready_is_named(client: Client, settings: PublisherSettings) -> None:
    response = await client.get("/readyz")
    document = await response.json()
    assert response.status == 503
    assert document["ready"] is False
    assert document["checks"]["journal"] == document["checks"]["repository"] == "ok"
    assert "http://127.0.0.1:9" in document["checks"]["store"]
    assert document["waiting_for"] == "the repository has not been recovered yet"
    assert settings.directory is not None
    shutil.rmtree(settings.directory)
    document = await (await client.get("/readyz")).json()
    assert (
        document["checks"]["repository"]
        == f"{settings.directory}/.batches cannot be written: No such file or directory"
    )


async def _hang(_status: StatusReader) -> PublisherStatus:
    """Wait for a database that hears nothing, not even that nobody waits for it any more."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.sleep(60)
    raise JournalError("made up")


async def _fail(_status: StatusReader) -> PublisherStatus:
    raise JournalError("made up")


@pytest.mark.parametrize(("read", "said"), [(_hang, "no answer within 0.1 s"), (_fail, "made up")])
async def test_it_says_so_soon_where_the_journal_does_not_answer(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    read: Callable[[StatusReader], Awaitable[PublisherStatus]],
    said: str,
) -> None:
    monkeypatch.setattr(health, "_PATIENCE", 0.1)
    monkeypatch.setattr(StatusReader, "read", read)
    async with asyncio.timeout(30):
        response = await client.get("/readyz")
        document = await response.json()
    assert (response.status, document["ready"]) == (503, False)
    assert document["waiting_for"] == f"the journal: {said}"
    assert document["checks"].keys() == {"journal", "store", "repository"}


async def test_metrics_show_the_layers_of_every_state(client: Client) -> None:
    response = await client.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    text = await response.text()
    for state in ("announced", "fetching", "verified", "publishing", "published", "failed"):
        assert f'publisher_layers{{state="{state}"}} 0.0' in text


async def test_a_whitelist_that_will_expire_is_told_before(tmp_path: Path) -> None:
    repository = RepositoryName(REPOSITORY)
    keys = KeyFiles(tmp_path / "keys", repository)
    create_repository(
        name=repository,
        storage=DirectoryStorage(tmp_path / "repository"),
        keys=keys,
        chosen=RepositoryFormat(),
        meta={},
        clock=lambda: time.time() - 25 * 86400,
    )
    keys.master.unlink()
    settings = PublisherSettings(
        repository=REPOSITORY,
        repository_kind=RepositoryKind.NATIVE,
        directory=tmp_path / "repository",
        keys=tmp_path / "keys",
        state=tmp_path / "state",
        spool=tmp_path / "spool",
        event_token=SecretStr(TOKEN),
    )
    async with build_publisher(settings, UNREACHABLE, ArchiveLimits(), impatient()) as publisher:
        keeper = asyncio.ensure_future(publisher.services[-1]())
        async with asyncio.timeout(300), TestClient(TestServer(publisher.app)) as client:
            document: dict[str, Any] = {"warnings": {}}
            while not document["warnings"]:
                document = await (await client.get("/readyz")).json()
            assert "the master key is not here" in document["warnings"]["whitelist"]
            assert document["checks"]["whitelist"] == "ok"
        keeper.cancel()
