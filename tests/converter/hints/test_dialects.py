"""Every registry's own words come to the same: a repository and a tag to look at."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.digest import Digest
from services.converter.hints.dialects.parse import Kind, read_delivery
from services.converter.hints.errors import NotJsonError, PayloadError
from services.converter.hints.model import Reading
from services.converter.model import Hint
from tests.support.hints import DIGEST, distribution_event, envelope, github_webhook, harbor_webhook, hint

_GITHUB = {"X-GitHub-Event": "registry_package", "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958"}
_RESOURCE = {"digest": DIGEST, "tag": "v1", "resource_url": "other.example.org/physics/tool:v1"}
_UNTAGGED = {"digest": DIGEST, "tag": DIGEST, "resource_url": f"harbor.example.org/physics/tool@{DIGEST}"}
_QUAY = {
    "name": "tool",
    "repository": "physics/tool",
    "namespace": "physics",
    "docker_url": "quay.example.org/physics/tool",
    "homepage": "https://quay.example.org/repository/physics/tool",
}
_HUB = {
    "callback_url": "https://registry.hub.docker.com/u/physics/tool/hook/1/",
    "push_data": {"pushed_at": 1417566161, "pusher": "somebody", "tag": "v1", "images": []},
    "repository": {"repo_name": "physics/tool", "name": "tool", "namespace": "physics", "is_private": False},
}


def _read(kind: Kind, body: bytes, headers: dict[str, str] | None = None) -> Reading:
    return read_delivery(kind, body, registry="registry.example.org", headers=headers or {})


def _names(reading: Reading) -> list[str]:
    return [f"{event.hint.registry}/{event.hint.repository}:{event.hint.tag}" for event in reading.events]


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("kind", "body", "headers"),
    [
        (Kind.DISTRIBUTION, envelope(distribution_event()), {}),
        (Kind.DISTRIBUTION, envelope(distribution_event(action="delete")), {}),
        (Kind.AZURE, _json(distribution_event()), {}),
        (Kind.HARBOR, harbor_webhook("PUSH_ARTIFACT", _RESOURCE), {}),
        (Kind.HARBOR, harbor_webhook("DELETE_ARTIFACT", _RESOURCE), {}),
        (Kind.HARBOR, harbor_webhook("harbor.artifact.pushed", _RESOURCE, cloud_event=True), {}),
        (Kind.HARBOR, harbor_webhook("harbor.artifact.deleted", _RESOURCE, cloud_event=True), {}),
        (Kind.HARBOR, harbor_webhook("PUSH_ARTIFACT", _UNTAGGED, _RESOURCE), {}),
        (
            Kind.HARBOR,
            harbor_webhook(
                "REPLICATION",
                replication={
                    "dest_resource": {"registry_type": "harbor", "namespace": "physics"},
                    "successful_artifact": [{"type": "image", "status": "Success", "name_tag": "tool:v1 [1 in total]"}],
                },
            ),
            {},
        ),
        (
            Kind.HARBOR,
            harbor_webhook(
                "harbor.replication.status.changed",
                cloud_event=True,
                replication={
                    "dest_resource": {"namespace": "physics"},
                    "successful_artifact": [{"name_tag": "physics/tool:v1"}],
                },
            ),
            {},
        ),
        (Kind.QUAY, _json(_QUAY | {"updated_tags": ["v1"]}), {}),
        (
            Kind.QUAY,
            _json(_QUAY | {"updated_tags": {"v1": "f0e1"}, "pushed_image_count": 10}),
            {},
        ),
        (Kind.DOCKER_HUB, _json(_HUB), {}),
    ],
)
def test_a_push_or_a_deletion_is_a_hint(kind: Kind, body: bytes, headers: dict[str, str]) -> None:
    reading = _read(kind, body, headers)
    assert _names(reading) == ["registry.example.org/physics/tool:v1"]
    assert reading.malformed == 0


@pytest.mark.parametrize("event", ["package", "registry_package"])
def test_a_published_package_of_github_is_a_hint(event: str) -> None:
    reading = read_delivery(
        Kind.GITHUB, github_webhook(event=event), registry="ghcr.io", headers=_GITHUB | {"X-GitHub-Event": event}
    )
    assert _names(reading) == ["ghcr.io/physics/tool:v1"]
    assert reading.events[0].identity is not None
    assert reading.events[0].identity.startswith(_GITHUB["X-GitHub-Delivery"])


@pytest.mark.parametrize("end", [".sig", ""])
def test_a_signature_is_a_hint_about_what_is_signed(end: str) -> None:
    reading = _read(Kind.DISTRIBUTION, envelope(distribution_event(tag=f"sha256-{'ab' * 32}{end}")), {})
    (event,) = reading.events
    assert (event.hint.repository, event.hint.signed) == ("physics/tool", Digest("ab" * 32))
    assert Hint(registry="q.io", repository="ns/tool", tag="v1").signed is None


@pytest.mark.parametrize(
    ("kind", "body", "headers"),
    [
        (Kind.DISTRIBUTION, envelope(distribution_event(tag=None)), {}),
        (Kind.DISTRIBUTION, envelope(distribution_event(action="pull"), distribution_event(action="mount")), {}),
        (
            Kind.DISTRIBUTION,
            envelope(*(distribution_event(tag=f"sha256-{'ab' * 32}{end}") for end in (".att", ".sbom"))),
            {},
        ),
        (Kind.DISTRIBUTION, envelope(), {}),
        (Kind.AZURE, _json(distribution_event(action="chart_push")), {}),
        (Kind.HARBOR, harbor_webhook("PULL_ARTIFACT", _RESOURCE), {}),
        (Kind.HARBOR, harbor_webhook("SCANNING_COMPLETED", _RESOURCE), {}),
        (Kind.HARBOR, harbor_webhook("PUSH_ARTIFACT", _UNTAGGED), {}),
        (Kind.HARBOR, _json({"type": "TAG_RETENTION", "event_data": None}), {}),
        (Kind.QUAY, _json(_QUAY | {"build_id": "fake"}), {}),
        (Kind.QUAY, _json(_QUAY | {"updated_tags": []}), {}),
        (Kind.GITHUB, _json({"zen": "Keep it logically awesome.", "hook_id": 1}), {"X-GitHub-Event": "ping"}),
        (Kind.GITHUB, github_webhook(tag=""), _GITHUB),
        (Kind.GITHUB, github_webhook(ecosystem="NPM", package_type="npm"), _GITHUB),
    ],
)
def test_what_changes_no_tag_of_an_image_announces_nothing(kind: Kind, body: bytes, headers: dict[str, str]) -> None:
    reading = read_delivery(kind, body, registry="ghcr.io", headers=headers)
    assert reading.events == ()
    assert reading.malformed == 0


def test_a_push_of_an_index_is_one_hint() -> None:
    children = [distribution_event(tag=None, id=f"child-{number}") for number in range(3)]
    blobs = [distribution_event(tag=None, id=f"blob-{number}") for number in range(5)]
    reading = _read(Kind.DISTRIBUTION, envelope(*blobs, *children, distribution_event()))
    assert [event.hint for event in reading.events] == [hint("registry.example.org/physics/tool:v1")]
    assert reading.ignored == 8


@pytest.mark.parametrize(
    "event",
    [
        distribution_event(repository="../../etc"),
        distribution_event(repository="physics/tool:v2"),
        distribution_event(repository="Physics"),
        distribution_event(repository="a" * 300),
        distribution_event(repository=""),
        distribution_event(tag=".hidden"),
        distribution_event(tag="a/b"),
        distribution_event(tag="a" * 129),
        distribution_event(tag="v1\n"),
        distribution_event(repository="physics/tööl"),
        distribution_event(tag="\ud800"),
        distribution_event(target=[]),
        distribution_event(target={"repository": {"a": 1}, "tag": "v1"}),
        distribution_event() | {"action": 7},
        {},
    ],
)
def test_an_event_that_names_nothing_is_passed_over_and_the_others_are_taken(event: dict[str, Any]) -> None:
    # The registry repeats an envelope for ever that is refused, and everything else waits behind it.
    reading = _read(Kind.DISTRIBUTION, envelope(event, distribution_event(tag="v2")))
    assert _names(reading) == ["registry.example.org/physics/tool:v2"]
    assert reading.malformed == 1


@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        (Kind.DISTRIBUTION, {}),
        (Kind.AZURE, {}),
        (Kind.HARBOR, {}),
        (Kind.QUAY, {}),
        (Kind.DOCKER_HUB, {}),
        (Kind.GITHUB, _GITHUB),
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"events":' * 50_000,
        b"[]",
        b"7",
        b'{"events": 7, "type": 7, "repository": 7, "action": [], "package": 7}',
        b'{"n": ' + b"9" * 10_000 + b"}",
    ],
)
def test_what_is_not_of_the_form_is_refused(kind: Kind, headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(PayloadError):
        _read(kind, body, headers)


def test_what_is_no_json_is_told_from_json_of_another_form() -> None:
    with pytest.raises(NotJsonError):
        _read(Kind.HARBOR, b"{")
    with pytest.raises(PayloadError) as told:
        _read(Kind.HARBOR, b"{}")
    assert not isinstance(told.value, NotJsonError)
    assert str(told.value) == "the body is not a webhook of Harbor: type: Field required"


def test_the_registry_is_the_one_that_the_endpoint_is_for_whatever_the_event_says() -> None:
    assert _names(_read(Kind.QUAY, _json(_QUAY | {"updated_tags": ["v1"]})))[0].startswith("registry.example.org/")
    elsewhere = github_webhook()
    assert _read(Kind.GITHUB, elsewhere, _GITHUB) == Reading(malformed=1)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)
_WORDS = (
    "events",
    "target",
    "type",
    "event_data",
    "data",
    "resources",
    "repository",
    "updated_tags",
    "push_data",
    "package",
)


@settings(max_examples=30)
@given(document=st.dictionaries(st.sampled_from(_WORDS), _JSON, max_size=4), kind=st.sampled_from(sorted(Kind)))
def test_no_document_does_more_than_be_refused(document: dict[str, Any], kind: Kind) -> None:
    if kind is Kind.SYNC:
        return
    try:
        reading = _read(kind, _json(document), _GITHUB)
    except PayloadError:
        return
    assert all(event.hint.registry == "registry.example.org" for event in reading.events)
