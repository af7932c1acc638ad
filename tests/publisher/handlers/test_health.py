"""Health, readiness and metrics."""

import shutil
from typing import Any

from aiohttp.test_utils import TestClient

from services.publisher.settings import PublisherSettings

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


async def test_metrics_show_the_layers_of_every_state(client: Client) -> None:
    response = await client.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    text = await response.text()
    for state in ("announced", "fetching", "verified", "publishing", "published", "failed"):
        assert f'publisher_layers{{state="{state}"}} 0.0' in text
