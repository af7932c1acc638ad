"""Hints are taken from whoever may send them, are on the disk when that is answered, and harm nothing else."""

import asyncio
import gzip
import json
import sqlite3
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from services.common import request_body
from services.converter.hints.factory import Hints
from services.converter.hints.journal import HintJournal
from services.converter.model import Hint
from tests.support.hints import (
    DIGEST,
    SECRETS,
    distribution_event,
    envelope,
    github_webhook,
    harbor_webhook,
    hint,
    signature_of,
)

Client = TestClient[Any, Any]

_QUAY = b'{"repository": "physics/tool", "updated_tags": ["v1"]}'
_HUB = b'{"push_data": {"tag": "v1"}, "repository": {"repo_name": "physics/tool"}}'
_HARBOR = harbor_webhook("PUSH_ARTIFACT", {"digest": DIGEST, "tag": "v1"})
_GITHUB = github_webhook()
_GITHUB_HEADERS = {
    "X-GitHub-Event": "registry_package",
    "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
    "X-Hub-Signature-256": signature_of(_GITHUB),
}


def _bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRETS[name]}"}


def _on_disk(tmp_path: Path) -> list[Hint]:
    with closing(sqlite3.connect(tmp_path / "state" / "hints.sqlite")) as connection, connection:
        rows = connection.execute("SELECT registry, repository, tag FROM pending ORDER BY sequence").fetchall()
    connection.close()
    return [Hint(registry=registry, repository=repository, tag=tag or None) for registry, repository, tag in rows]


@pytest.mark.parametrize(
    ("path", "headers", "body", "expected"),
    [
        (
            "distribution",
            _bearer("distribution"),
            envelope(distribution_event()),
            "registry.example.org:5000/physics/tool:v1",
        ),
        ("harbor", {"Authorization": SECRETS["harbor"]}, _HARBOR, "harbor.example.org/physics/tool:v1"),
        ("harbor", _bearer("harbor"), _HARBOR, "harbor.example.org/physics/tool:v1"),
        ("azure", _bearer("azure"), json.dumps(distribution_event()).encode(), "x.azurecr.io/physics/tool:v1"),
        (f"quay/{SECRETS['quay']}", {}, _QUAY, "quay.io/physics/tool:v1"),
        (f"quay?token={SECRETS['quay']}", {}, _QUAY, "quay.io/physics/tool:v1"),
        (f"docker-hub/{SECRETS['docker-hub']}", {}, _HUB, "docker.io/physics/tool:v1"),
        ("github", _GITHUB_HEADERS, _GITHUB, "ghcr.io/physics/tool:v1"),
    ],
)
async def test_a_webhook_is_on_the_disk_when_it_is_answered(
    client: Client, tmp_path: Path, hints: Hints, path: str, headers: dict[str, str], body: bytes, expected: str
) -> None:
    response = await client.post(f"/v1/hints/{path}", data=body, headers=headers)
    assert (response.status, (await response.json())["taken"]) == (202, 1)
    assert _on_disk(tmp_path) == [hint(expected)]
    assert await hints.journal.next() == hint(expected)


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("distribution", {}, envelope(distribution_event())),
        ("distribution", _bearer("harbor"), envelope(distribution_event())),
        ("distribution", {"Authorization": "Bearer "}, envelope(distribution_event())),
        ("distribution", {"Authorization": "Bearer \udcff"}, envelope(distribution_event())),
        # Their senders can send a header, so that no proxy's log needs to have the secret.
        (f"distribution/{SECRETS['distribution']}", {}, envelope(distribution_event())),
        (f"harbor?token={SECRETS['harbor']}", {}, _HARBOR),
        ("quay", {}, _QUAY),
        (f"quay/{SECRETS['docker-hub']}", {}, _QUAY),
        (f"docker-hub/{SECRETS['quay']}", {}, _HUB),
        ("github", {}, _GITHUB),
        ("github", _bearer("github"), _GITHUB),
        ("github", _GITHUB_HEADERS | {"X-Hub-Signature-256": signature_of(_GITHUB, "another")}, _GITHUB),
        ("github", _GITHUB_HEADERS, _GITHUB + b" "),
        (f"github/{SECRETS['github']}", {}, _GITHUB),
        ("nobody", _bearer("distribution"), envelope(distribution_event())),
        # Stands for a secret where there is no endpoint.
        ("nobody", {"Authorization": f"Bearer {'-' * 32}"}, envelope(distribution_event())),
        ("atlas", _bearer("atlas"), envelope(distribution_event())),
    ],
)
async def test_a_webhook_of_somebody_else_is_refused_and_nothing_of_it_is_kept(
    client: Client, tmp_path: Path, path: str, headers: dict[str, str], body: bytes
) -> None:
    with capture_logs() as logs:
        response = await client.post(f"/v1/hints/{path}", data=body, headers=headers)
    assert response.status == 401
    assert _on_disk(tmp_path) == []
    told = str(logs) + await response.text()
    assert [secret for secret in SECRETS.values() if secret in told] == []


async def test_a_forged_one_tells_nothing_about_what_endpoints_there_are(client: Client) -> None:
    answers = [await client.post(f"/v1/hints/{name}", data=b"{}") for name in ("harbor", "nobody", "atlas", "github")]
    assert {(answer.status, await answer.text()) for answer in answers} == {
        (401, '{"error": "there is no such endpoint, or its secret is missing or wrong"}')
    }


async def test_what_comes_twice_has_no_further_effect(client: Client, hints: Hints, metrics: CollectorRegistry) -> None:
    for expected in ({"taken": 1, "repeated": 0}, {"taken": 0, "repeated": 1}):
        answer = await client.post("/v1/hints/github", data=_GITHUB, headers=_GITHUB_HEADERS)
        assert expected.items() <= (await answer.json()).items()
    for _ in range(3):
        answer = await client.post("/v1/hints/harbor", data=_HARBOR, headers=_bearer("harbor"))
        assert answer.status == 202
    assert hints.journal.pending == 2
    assert metrics.get_sample_value("converter_hints_pending") == 2


async def test_only_what_is_wished_and_allowed_is_kept(
    client: Client, endpoints: Path, tmp_path: Path, metrics: CollectorRegistry
) -> None:
    document = json.loads(endpoints.read_text())
    document["endpoints"][0]["names"] = ["*/physics/*"]
    endpoints.write_text(json.dumps(document))
    events = [distribution_event(name) for name in ("physics/tool", "physics/unwished", "astro/tool", "BAD")]
    pull = distribution_event(action="pull")
    answer = await client.post("/v1/hints/distribution", data=envelope(*events, pull), headers=_bearer("distribution"))
    assert answer.status == 202
    outcome = {"taken": 1, "repeated": 0, "unmatched": 1, "ignored": 1, "malformed": 1, "not_allowed": 1}
    assert await answer.json() == outcome
    assert _on_disk(tmp_path) == [hint("registry.example.org:5000/physics/tool:v1")]
    for word, count in outcome.items():
        labels = {"endpoint": "distribution", "outcome": word}
        assert (metrics.get_sample_value("converter_hint_events_total", labels) or 0) == count


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"no JSON", {}, 400),
        (b"[" * 100_000, {}, 400),
        (b"{}", {}, 422),
        (b"[]", {}, 422),
        (b"x" * (1 << 20) + b"x", {}, 413),
        (gzip.compress(bytes(3 << 20)), {"Content-Encoding": "gzip"}, 413),
        (b"no gzip", {"Content-Encoding": "gzip"}, 400),
    ],
)
async def test_what_is_no_webhook_is_refused(
    client: Client, tmp_path: Path, body: bytes, headers: dict[str, str], status: int
) -> None:
    response = await client.post("/v1/hints/harbor", data=BytesIO(body), headers=_bearer("harbor") | headers)
    assert response.status == status
    assert "error" in await response.json()
    assert _on_disk(tmp_path) == []


async def test_a_body_that_does_not_arrive_is_not_waited_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    head = f"Host: x\r\nAuthorization: {SECRETS['harbor']}\r\nContent-Length: 100\r\n\r\n"
    writer.write(f"POST /v1/hints/harbor HTTP/1.1\r\n{head}".encode())
    assert b" 408 " in await reader.readline()
    writer.close()


async def test_more_than_may_wait_is_told_to_come_back_and_what_waits_goes_on(client: Client, hints: Hints) -> None:
    events = [distribution_event(tag=f"v{number}") for number in range(21)]
    for event in events[:20]:
        answer = await client.post("/v1/hints/distribution", data=envelope(event), headers=_bearer("distribution"))
        assert answer.status == 202
    answer = await client.post("/v1/hints/distribution", data=envelope(events[20]), headers=_bearer("distribution"))
    assert (answer.status, answer.headers["Retry-After"]) == (503, "10")
    await hints.journal.done(await hints.journal.next())
    again = envelope(distribution_event(tag="v5", id="another"))
    assert (await client.post("/v1/hints/distribution", data=again, headers=_bearer("distribution"))).status == 202
    for _ in range(20):
        assert await hints.journal.next() != hint("registry.example.org:5000/physics/tool:v0")
    answer = await client.post("/v1/hints/distribution", data=envelope(events[20]), headers=_bearer("distribution"))
    assert answer.status == 202


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("gitlab.example.org:5050/atlas/tool:v1", "gitlab.example.org:5050/atlas/tool:v1"),
        (f"gitlab.example.org:5050/atlas/tool:v1@{DIGEST}", "gitlab.example.org:5050/atlas/tool:v1"),
        (f"gitlab.example.org:5050/atlas/tool@{DIGEST}", "gitlab.example.org:5050/atlas/tool"),
        ("gitlab.example.org:5050/atlas/tool", "gitlab.example.org:5050/atlas/tool"),
    ],
)
async def test_a_project_asks_for_an_image_of_its_own(
    client: Client, tmp_path: Path, image: str, expected: str
) -> None:
    answer = await client.post("/v1/sync", json={"image": image}, headers=_bearer("atlas"))
    assert (answer.status, (await answer.json())["taken"]) == (202, 1)
    assert _on_disk(tmp_path) == [hint(expected)]


@pytest.mark.parametrize(
    ("token", "body", "status"),
    [
        ("atlas", {"image": "gitlab.example.org:5050/lhcb/tool:v1"}, 403),
        ("atlas", {"image": "gitlab.example.org/atlas/tool:v1"}, 403),
        ("lhcb", {"image": "gitlab.example.org:5050/atlas/tool:v1"}, 403),
        ("harbor", {"image": "gitlab.example.org:5050/atlas/tool:v1"}, 401),
        ("atlas", {"image": "gitlab.example.org:5050/atlas/../lhcb/tool:v1"}, 422),
        ("atlas", {"image": "gitlab.example.org:5050/atlas/tool:"}, 422),
        ("atlas", {"image": "gitlab.example.org:5050/atlas/tool@sha256:7"}, 422),
        ("atlas", {"image": f"gitlab.example.org:5050/atlas/tool:sha256-{'ab' * 32}.sig"}, 422),
        ("atlas", {"image": 7}, 422),
        ("atlas", {"image": "gitlab.example.org:5050/atlas/tool:v1", "digest": DIGEST}, 422),
        ("atlas", [], 422),
    ],
)
async def test_a_project_asks_for_nothing_else(
    client: Client, tmp_path: Path, token: str, body: object, status: int
) -> None:
    answer = await client.post("/v1/sync", json=body, headers=_bearer(token))
    assert answer.status == status
    assert _on_disk(tmp_path) == []


async def test_whoever_asks_for_what_nobody_wishes_is_told(client: Client, tmp_path: Path) -> None:
    body = {"image": "gitlab.example.org:5050/atlas/unwished:v1"}
    answer = await client.post("/v1/sync", json=body, headers=_bearer("atlas"))
    assert (answer.status, (await answer.json())["unmatched"]) == (202, 1)
    assert _on_disk(tmp_path) == []


async def test_a_defect_is_answered_and_the_address_is_not_logged(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(HintJournal, "record", fail)
    with capture_logs() as logs:
        answer = await client.post(f"/v1/hints/quay/{SECRETS['quay']}", data=_QUAY)
    assert answer.status == 500
    assert [entry["event"] for entry in logs] == ["hints failed unexpectedly"]
    assert SECRETS["quay"] not in str(logs)


async def test_refusals_are_counted_by_endpoints_that_there_are(client: Client, metrics: CollectorRegistry) -> None:
    for name in ("harbor", "made-up-1", "made-up-2"):
        await client.post(f"/v1/hints/{name}", data=b"{}")
    count = metrics.get_sample_value
    assert count("converter_hint_requests_total", {"endpoint": "harbor", "status": "401"}) == 1
    assert count("converter_hint_requests_total", {"endpoint": "-", "status": "401"}) == 2
