"""`/v1/events` takes what is announced by whoever has the token, and answers only when it is on the disk."""

import asyncio
import gzip
import sqlite3
from base64 import b64encode
from contextlib import closing
from io import BytesIO
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from pydantic import SecretStr

from services.common import request_body as bodies
from services.publisher.handlers.token import TokenCheck
from services.publisher.settings import PublisherSettings
from tests.support.notifications import ceph_event, minio_event, seaweedfs_event
from tests.support.publisher import TOKEN

Client = TestClient[Any, Any]

_DIGEST = "1be7f2b886e89a58e59c4e685fcc5905a26ddef3201f290b96f1eff7d778e122"
_EVENT = minio_event("layers", f"sha256/{_DIGEST}")
_BEARER = {"Authorization": f"Bearer {TOKEN}"}


def _on_disk(settings: PublisherSettings) -> list[str]:
    with closing(sqlite3.connect(settings.state / "journal.sqlite")) as connection, connection:
        found = [digest for (digest,) in connection.execute("SELECT digest FROM layers WHERE state = 'announced'")]
    connection.close()
    return found


@pytest.mark.parametrize(
    "body",
    [
        _EVENT,
        ceph_event("layers", f"sha256/{_DIGEST}"),
        seaweedfs_event("layers", f"sha256/{_DIGEST}", chunks=900),
    ],
)
async def test_an_announced_layer_is_on_the_disk_when_it_is_answered(
    client: Client, settings: PublisherSettings, body: bytes
) -> None:
    response = await client.post("/v1/events", data=body, headers=_BEARER)
    assert response.status == 204
    assert _on_disk(settings) == [_DIGEST]


async def test_events_that_come_twice_are_answered_the_same(client: Client, settings: PublisherSettings) -> None:
    for _ in range(3):
        assert (await client.post("/v1/events", data=_EVENT, headers=_BEARER)).status == 204
    assert _on_disk(settings) == [_DIGEST]


async def test_what_announces_nothing_is_acknowledged(client: Client, settings: PublisherSettings) -> None:
    for body in (
        minio_event("layers", "probe"),
        minio_event("layers", f"sha256/{_DIGEST}", name="s3:ObjectRemoved:Delete"),
    ):
        assert (await client.post("/v1/events", data=body, headers=_BEARER)).status == 204
    assert _on_disk(settings) == []


async def test_the_token_may_be_part_of_the_url(client: Client) -> None:
    assert (await client.post(f"/v1/events?token={TOKEN}", data=_EVENT)).status == 204


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Basic {b64encode(TOKEN.encode()).decode()}"},
        {"Authorization": f"Bearer {TOKEN.upper()}"},
        {"X-Token": TOKEN},
        {"Cookie": f"token={TOKEN}"},
    ],
)
async def test_without_the_token_nothing_is_recorded(
    client: Client, settings: PublisherSettings, headers: dict[str, str]
) -> None:
    response = await client.post("/v1/events", data=_EVENT, headers=headers)
    assert response.status == 401
    assert await response.json() == {"error": "the token is missing or wrong"}
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert _on_disk(settings) == []


@pytest.mark.parametrize("query", ["token=", "token=wrong", f"TOKEN={TOKEN}", f"token=wrong&token={TOKEN}"])
async def test_a_wrong_token_in_the_url_is_refused(client: Client, query: str) -> None:
    assert (await client.post(f"/v1/events?{query}", data=_EVENT)).status == 401


async def test_a_head_tells_whether_the_token_is_right(client: Client) -> None:
    assert (await client.head("/v1/events", headers=_BEARER)).status == 204
    assert (await client.head("/v1/events")).status == 401


def test_a_token_of_two_words_is_the_whole_header() -> None:
    # MinIO sends an auth_token of two words as it is.
    check = TokenCheck(SecretStr("Digest 0123456789abcdef"))
    assert check.accepts("Digest 0123456789abcdef", "")
    assert not check.accepts("Bearer 0123456789abcdef", "")
    assert not check.accepts("0123456789abcdef", "")


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"", 400, "the body is not JSON: "),
        (b"{", 400, "the body is not JSON: "),
        (b"\xff", 400, "the body is not JSON: "),
        (b"[]", 422, "no known dialect"),
        (b'{"Records": [{}]}', 422, "Records.0.eventName: Field required"),
    ],
)
async def test_a_bad_body_is_refused_with_what_is_wrong(client: Client, body: bytes, status: int, error: str) -> None:
    response = await client.post("/v1/events", data=body, headers=_BEARER)
    assert response.status == status
    assert error in (await response.json())["error"]


async def test_a_body_that_is_too_large_is_refused(client: Client, settings: PublisherSettings) -> None:
    padding = b" " * (settings.event_limit + 1 - len(_EVENT))
    response = await client.post("/v1/events", data=BytesIO(_EVENT + padding), headers=_BEARER)
    assert (response.status, await response.json()) == (413, {"error": "a notification has at most 1048576 bytes"})
    response = await client.post("/v1/events", data=BytesIO(_EVENT + padding[1:]), headers=_BEARER)
    assert response.status == 204


async def test_a_body_without_a_length_is_bounded_too(client: Client, settings: PublisherSettings) -> None:
    async def endless() -> Any:  # noqa: ANN401 - an asynchronous generator
        for _ in range(100):
            yield b" " * 65536

    assert settings.event_limit < 100 * 65536
    assert (await client.post("/v1/events", data=endless(), headers=_BEARER)).status == 413


async def test_a_compressed_body_is_read_and_bounded(client: Client, settings: PublisherSettings) -> None:
    compressed = {**_BEARER, "Content-Encoding": "gzip"}
    assert (await client.post("/v1/events", data=gzip.compress(_EVENT), headers=compressed)).status == 204
    assert _on_disk(settings) == [_DIGEST]
    bomb = gzip.compress(bytes(settings.event_limit + 1))
    assert (await client.post("/v1/events", data=bomb, headers=compressed)).status == 413


@pytest.mark.parametrize("path", ["/v1/events", "/v1/publishing/pause"])
async def test_a_body_that_cannot_be_decompressed_is_no_defect(client: Client, path: str) -> None:
    response = await client.post(path, data=b"no gzip", headers={**_BEARER, "Content-Encoding": "gzip"})
    assert response.status == 400
    assert "did not arrive whole, or cannot be decompressed" in (await response.json())["error"]


async def test_a_body_that_does_not_arrive_is_given_up(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_SECONDS", 0.1)

    async def slow() -> Any:  # noqa: ANN401 - an asynchronous generator
        yield _EVENT[:10]
        await asyncio.Event().wait()

    response = await client.post("/v1/events", data=slow(), headers=_BEARER)
    assert (response.status, await response.json()) == (408, {"error": "a notification did not arrive within 0.1 s"})


async def test_other_methods_and_paths_are_answered_as_json(client: Client) -> None:
    response = await client.put("/v1/events", data=_EVENT, headers=_BEARER)
    assert (response.status, response.headers["Allow"]) == (405, "HEAD,POST")
    assert (await response.json())["error"] == "PUT /v1/events: Method Not Allowed"
    response = await client.get("/v1/nothing")
    assert (response.status, await response.json()) == (404, {"error": "GET /v1/nothing: Not Found"})


async def test_a_journal_that_fails_is_no_success(client: Client, settings: PublisherSettings) -> None:
    def rename(old: str, new: str) -> None:
        with closing(sqlite3.connect(settings.state / "journal.sqlite")) as connection, connection:
            connection.execute(f"ALTER TABLE {old} RENAME TO {new}")

    rename("layers", "gone")
    response = await client.post("/v1/events", data=_EVENT, headers=_BEARER)
    rename("gone", "layers")  # the publisher writes at its end that it has left
    assert (response.status, response.headers["Retry-After"]) == (503, "5")
    assert "no such table" in (await response.json())["error"]


async def test_the_token_is_in_no_log(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    await client.post(f"/v1/events?token={TOKEN}x", data=_EVENT)
    await client.post(f"/v1/events?token={TOKEN}", data=b"{")
    log = "".join(capsys.readouterr())
    assert log.count("notification refused") == 2
    assert TOKEN not in log
