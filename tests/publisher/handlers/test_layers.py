"""`/v1/layers` shows the journal, and tries a layer again for whoever has the token."""

import sqlite3
from contextlib import closing
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


def _write(settings: PublisherSettings, statement: str, *parameters: str | float) -> None:
    with closing(sqlite3.connect(settings.state / "journal.sqlite")) as connection, connection:
        connection.execute(statement, parameters)
    connection.close()


@pytest.mark.usefixtures("announced")
async def test_a_layer_is_shown(client: Client, settings: PublisherSettings) -> None:
    layer = await (await client.get(f"/v1/layers/{_DIGESTS[1]}")).json()
    assert layer.pop("announced_at") == layer.pop("updated_at")
    assert layer == {
        "digest": _DIGESTS[1],
        "state": "announced",
        "publisher": None,
        "revision": None,
        "reason": None,
        "retryable": None,
        "next_attempt": None,
        "attempts": 0,
        "source": "bucket",
        "archive_size": None,
        "tree_size": None,
        "notes": [],
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


async def _all(client: Client, path: str) -> list[str]:
    found = []
    while path:
        page = await (await client.get(path)).json()
        found += [layer["digest"] for layer in page["layers"]]
        path = page["next"]
    return found


@pytest.mark.usefixtures("announced")
async def test_layers_are_listed_by_the_time_of_their_change(client: Client, settings: PublisherSettings) -> None:
    # Two that changed at the same moment, and times that no short decimal fraction is equal to.
    for number, time in ((0, 1e9 + 1 / 3), (1, 1e9 + 2 / 3), (2, 1e9 + 1 / 3), (3, 1e9 + 1 / 7), (4, 1e9)):
        _write(settings, "UPDATE layers SET updated_at = ? WHERE digest = ?", time, _DIGESTS[number])
    expected = [_DIGESTS[number] for number in (1, 2, 0, 3, 4)]
    for limit in (1, 2, 5, 6):
        assert await _all(client, f"/v1/layers?order=recent&limit={limit}") == expected


@pytest.mark.usefixtures("announced")
async def test_layers_are_selected(client: Client, settings: PublisherSettings) -> None:
    _write(settings, "UPDATE layers SET state = 'published' WHERE digest = ?", _DIGESTS[0])
    reason = "The archive is REFUSED: 100 % of it"
    for number, again in ((1, 0), (2, 1)):
        _write(
            settings,
            "UPDATE layers SET state = 'failed', reason = ?, retryable = ? WHERE digest = ?",
            reason,
            again,
            _DIGESTS[number],
        )
    for query, numbers in {
        "state=failed": [1, 2],
        "state=failed&state=published": [0, 1, 2],
        "state=": [0, 1, 2, 3, 4],
        "refused=true": [1],
        "refused=false": [2],
        "reason=archive is refused": [1, 2],
        "reason=100 %25 of": [1, 2],
        "reason=100_%25": [],
        f"digest={_DIGESTS[3][:64]}": [3],
        f"digest={_DIGESTS[3][:10]}": [0, 1, 2, 3, 4],
        "digest=f": [],
        "state=failed&refused=true&digest=0&reason=the": [1],
    }.items():
        for order in ("digest", "recent"):
            found = await _all(client, f"/v1/layers?{query}&order={order}&limit=1")
            assert sorted(found) == [_DIGESTS[number] for number in numbers], query


@pytest.mark.usefixtures("announced")
async def test_all_failed_layers_are_tried_again_at_once(client: Client, settings: PublisherSettings) -> None:
    _write(settings, "UPDATE layers SET state = 'failed', reason = 'forged' WHERE digest < ?", _DIGESTS[2])
    _write(settings, "UPDATE layers SET state = 'published' WHERE digest = ?", _DIGESTS[4])
    assert (await client.post("/v1/layers/retry")).status == 401
    response = await client.post("/v1/layers/retry", headers=_BEARER)
    assert (response.status, await response.json()) == (202, {"restarted": 2})
    assert len(await _all(client, "/v1/layers?state=announced")) == 4


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v1/layers/nothing", 400, "not a sha256 digest"),
        (f"/v1/layers/{'A' * 64}", 400, "not a sha256 digest"),
        (f"/v1/layers/{'a' * 64}", 404, "no layer of this digest"),
        ("/v1/layers?state=lost", 400, "state is one of announced, fetching, verified, publishing, published, failed"),
        ("/v1/layers?limit=0", 400, "limit is between 1 and 1000"),
        ("/v1/layers?limit=1001", 400, "limit is between 1 and 1000"),
        ("/v1/layers?limit=x", 400, "limit is a number"),
        ("/v1/layers?after=x", 400, "not a sha256 digest"),
        ("/v1/layers?order=size", 400, "order is one of digest, recent"),
        (f"/v1/layers?order=recent&after={'a' * 64}", 400, "after is what the page before names as its next"),
        ("/v1/layers?digest=xyz", 400, "digest is the start of a digest"),
        (f"/v1/layers?reason={'x' * 201}", 400, "reason has at most 200 characters"),
        ("/v1/layers?refused=maybe", 400, "refused is true or false"),
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
