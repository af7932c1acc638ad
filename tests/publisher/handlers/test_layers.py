"""`/v1/layers` shows the journal, and tries a layer again for whoever has the token."""

import sqlite3
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from services.publisher.settings import PublisherSettings
from tests.support.notifications import ceph_event
from tests.support.publisher import TOKEN

Client = TestClient[Any, Any]

_BEARER = {"Authorization": f"Bearer {TOKEN}"}
_DIGESTS = [f"{number:064x}" for number in range(5)]


@pytest.fixture
async def announced(client: Client) -> None:
    """Five layers that have been announced."""
    body = ceph_event("layers", *(f"sha256/{digest}" for digest in _DIGESTS))
    assert (await client.post("/v1/events", data=body, headers=_BEARER)).status == 204


def _write(settings: PublisherSettings, statement: str, *parameters: str) -> None:
    with sqlite3.connect(settings.state / "journal.sqlite") as connection:
        connection.execute(statement, parameters)
    connection.close()


@pytest.mark.usefixtures("announced")
async def test_a_layer_is_shown(client: Client, settings: PublisherSettings) -> None:
    layer = await (await client.get(f"/v1/layers/{_DIGESTS[1]}")).json()
    assert layer.pop("announced_at") == layer.pop("updated_at")
    assert layer == {
        "digest": _DIGESTS[1],
        "state": "announced",
        "revision": None,
        "reason": None,
        "retryable": None,
        "next_attempt": None,
        "attempts": 0,
    }
    _write(settings, "UPDATE layers SET state = 'failed', reason = 'r', retryable = 1, due = 1.5, attempts = 2")
    layer = await (await client.get(f"/v1/layers/{_DIGESTS[1]}")).json()
    assert (layer["state"], layer["reason"], layer["retryable"], layer["attempts"]) == ("failed", "r", True, 2)
    assert layer["next_attempt"] == "1970-01-01T00:00:01.500+00:00"


@pytest.mark.usefixtures("announced")
async def test_layers_are_listed_page_by_page(client: Client, settings: PublisherSettings) -> None:
    found, path = [], "/v1/layers?limit=2"
    while path:
        page = await (await client.get(path)).json()
        assert len(page["layers"]) <= 2
        found += [layer["digest"] for layer in page["layers"]]
        path = page["next"]
    assert found == _DIGESTS
    _write(settings, "UPDATE layers SET state = 'published' WHERE digest = ?", _DIGESTS[3])
    page = await (await client.get("/v1/layers?state=published")).json()
    assert [layer["digest"] for layer in page["layers"]] == [_DIGESTS[3]]
    assert page["next"] is None


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v1/layers/nothing", 400, "not a sha256 digest"),
        (f"/v1/layers/{'A' * 64}", 400, "not a sha256 digest"),
        (f"/v1/layers/{'a' * 64}", 404, "no layer of this digest"),
        ("/v1/layers?state=lost", 400, "state is one of announced, fetching, verified, publishing, published, failed"),
        ("/v1/layers?limit=0", 400, "limit is between 1 and 1000"),
        ("/v1/layers?limit=1001", 400, "limit is between 1 and 1000"),
        ("/v1/layers?limit=x", 400, "invalid literal"),
        ("/v1/layers?after=x", 400, "not a sha256 digest"),
    ],
)
async def test_bad_requests_are_refused_with_what_is_wrong(client: Client, path: str, status: int, error: str) -> None:
    response = await client.get(path)
    assert response.status == status
    assert error in (await response.json())["error"]


@pytest.mark.usefixtures("announced")
async def test_a_retry_needs_the_token(client: Client, settings: PublisherSettings) -> None:
    _write(settings, "UPDATE layers SET state = 'failed', reason = 'forged', attempts = 3")
    path = f"/v1/layers/{_DIGESTS[0]}/retry"
    assert (await client.post(path)).status == 401
    assert (await (await client.get(f"/v1/layers/{_DIGESTS[0]}")).json())["state"] == "failed"
    response = await client.post(path, headers=_BEARER)
    assert response.status == 202
    assert (await response.json())["state"] == "announced"
    assert (await client.post(f"/v1/layers/{'a' * 64}/retry", headers=_BEARER)).status == 404
    assert (await client.post("/v1/layers/x/retry", headers=_BEARER)).status == 400
