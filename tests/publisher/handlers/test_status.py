"""`/v1/status` tells how the publisher is, and operators change it with the token."""

import asyncio
import socket
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from services.publisher.journal.image_model import ImageState
from services.publisher.settings import PublisherSettings
from tests.support.notifications import ceph_event
from tests.support.publisher import REPOSITORY, TOKEN

Client = TestClient[Any, Any]

_BEARER = {"Authorization": f"Bearer {TOKEN}"}


async def _status(client: Client) -> dict[str, Any]:
    document: dict[str, Any] = await (await client.get("/v1/status")).json()
    return document


async def test_the_status_of_a_publisher_that_has_done_nothing(client: Client) -> None:
    status = await _status(client)
    disks = status.pop("disks")
    assert 0 < disks["state"]["free"] <= disks["state"]["total"]
    assert disks["spool"] is None
    (alone,) = status.pop("publishers")
    assert (alone["name"], alone["layers"], alone["images"]) == (socket.gethostname(), 0, 0)
    assert status == {
        "leads": False,
        "repository": REPOSITORY,
        "paused": None,
        "waiting_for": "the repository has not been recovered yet",
        "layers": dict.fromkeys(("announced", "fetching", "verified", "publishing", "published", "failed"), 0),
        "refused": 0,
        "oldest_unpublished_seconds": 0,
        "images": dict.fromkeys(ImageState, 0),
        "refused_images": 0,
        "oldest_unpublished_image_seconds": 0,
        "transaction": None,
        "sweep": {"begun": 0, "ended": 0, "ended_at": None, "found": 0, "error": None},
        "check": None,
        "trusted_until": None,
        "spool": {"used": 0, "limit": 20 << 30},
    }


async def test_what_waits_has_an_age(client: Client) -> None:
    body = ceph_event("layers", f"sha256/{'a' * 64}")
    assert (await client.post("/v1/events", data=body, headers=_BEARER)).status == 204
    status = await _status(client)
    assert status["layers"]["announced"] == 1
    assert 0 < status["oldest_unpublished_seconds"] < 600
    metrics = await (await client.get("/metrics")).text()
    (line,) = [line for line in metrics.splitlines() if line.startswith("publisher_oldest_unpublished_seconds ")]
    assert status["oldest_unpublished_seconds"] <= float(line.split()[1]) < 600


async def test_a_pause_is_shown_everywhere_and_ended(client: Client) -> None:
    response = await client.post("/v1/publishing/pause", headers=_BEARER, data=b'{"reason": " a new disk "}')
    assert response.status == 200
    assert (await response.json())["paused"]["reason"] == "a new disk"
    status = await _status(client)
    assert status["waiting_for"] == "publishing is paused: a new disk"
    ready = await (await client.get("/readyz")).json()
    assert (ready["paused"], ready["waiting_for"]) == (True, "publishing is paused: a new disk")
    assert "publisher_paused 1.0" in await (await client.get("/metrics")).text()

    response = await client.post("/v1/publishing/resume", headers=_BEARER)
    assert (response.status, (await response.json())["paused"]) == (200, None)
    assert (await (await client.get("/readyz")).json())["paused"] is False
    assert "publisher_paused 0.0" in await (await client.get("/metrics")).text()


async def test_a_pause_needs_no_reason(client: Client) -> None:
    response = await client.post("/v1/publishing/pause", headers=_BEARER)
    assert (await response.json())["waiting_for"] == "publishing is paused"


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"{", 400, "the body: Invalid JSON"),
        (b"[]", 400, 'the body is {"reason": TEXT} or empty'),
        (b'{"why": ""}', 400, "why: Extra inputs"),
        (b'{"reason": "' + b"x" * 501 + b'"}', 400, "reason: String should have at most 500 characters"),
        (b'{"reason": "' + b"x" * 20_000 + b'"}', 413, "the body has at most 16384 bytes"),
    ],
)
async def test_what_is_no_reason_pauses_nothing(client: Client, body: bytes, status: int, error: str) -> None:
    response = await client.post("/v1/publishing/pause", headers=_BEARER, data=body)
    assert response.status == status
    assert error in (await response.json())["error"]
    assert (await _status(client))["paused"] is None


async def test_a_reason_may_come_in_pieces(client: Client) -> None:
    async def pieces() -> Any:  # noqa: ANN401 - an asynchronous generator
        for piece in (b'{"reason"', b': "a new', b' disk"}'):
            yield piece
            await asyncio.sleep(0)

    response = await client.post("/v1/publishing/pause", headers=_BEARER, data=pieces())
    assert (await response.json())["waiting_for"] == "publishing is paused: a new disk"


@pytest.mark.parametrize("path", ["/v1/publishing/pause", "/v1/publishing/resume", "/v1/sweep"])
async def test_changes_need_the_token(client: Client, path: str) -> None:
    await client.post("/v1/publishing/pause", headers=_BEARER, data=b'{"reason": "first"}')
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        response = await client.post(path, headers=headers)
        assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert await response.json() == {"error": "the token is missing or wrong"}
    assert (await _status(client))["paused"]["reason"] == "first"


async def test_the_space_of_disks_is_measured(client: Client, settings: PublisherSettings) -> None:
    settings.spool.mkdir()
    status = await _status(client)
    assert 0 < status["disks"]["spool"]["free"] <= status["disks"]["spool"]["total"]
    metrics = await (await client.get("/metrics")).text()
    assert 'publisher_disk_free_bytes{directory="spool"}' in metrics
    assert "publisher_spool_limit_bytes 2.147483648e+10" in metrics
