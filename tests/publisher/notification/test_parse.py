"""Three dialects become one type; what is wrong is said; what is of no interest is passed over."""

import json
from itertools import chain
from typing import Any

import pytest

from services.common.digest import Digest
from services.publisher.errors import NotificationError, UnknownDialectError
from services.publisher.notification.model import ObjectCreated
from services.publisher.notification.parse import parse_notification
from tests.support.notifications import ceph_event, minio_event, seaweedfs_event

_DIGEST = Digest("1be7f2b886e89a58e59c4e685fcc5905a26ddef3201f290b96f1eff7d778e122")
_OTHER = Digest("2be7f2b886e89a58e59c4e685fcc5905a26ddef3201f290b96f1eff7d778e122")
_KEY = f"sha256/{_DIGEST}"


def _parse(body: bytes) -> list[Digest]:
    return [event.digest for event in parse_notification(body, bucket="layers")]


@pytest.mark.parametrize(
    "body",
    [
        minio_event("layers", _KEY),
        minio_event("layers", _KEY, size=None),
        minio_event("layers", _KEY, name="s3:ObjectCreated:CompleteMultipartUpload"),
        minio_event("layers", _KEY, name="s3:ObjectCreated:Copy"),
        ceph_event("layers", _KEY),
        ceph_event("layers", _KEY, name="ObjectCreated:CompleteMultipartUpload"),
        seaweedfs_event("layers", _KEY),
        seaweedfs_event("layers", _KEY, event="update"),
        seaweedfs_event("layers", _KEY, event="rename"),
    ],
)
def test_a_created_layer_is_announced(body: bytes) -> None:
    assert parse_notification(body, bucket="layers") == (ObjectCreated(_DIGEST),)


def test_an_event_of_seaweedfs_grows_with_the_object() -> None:
    body = seaweedfs_event("layers", _KEY, chunks=900)
    assert len(body) > 180_000
    assert _parse(body) == [_DIGEST]


def test_several_records_announce_each_layer_once() -> None:
    assert _parse(ceph_event("layers", _KEY, f"sha256/{_OTHER}", _KEY)) == [_DIGEST, _OTHER]


@pytest.mark.parametrize(
    "body",
    [
        minio_event("layers", _KEY, name="s3:ObjectRemoved:Delete"),
        minio_event("layers", _KEY, name="s3:ObjectAccessed:Get"),
        ceph_event("layers", _KEY, name="ObjectRemoved:Delete"),
        seaweedfs_event("layers", _KEY, event="delete"),
        b'{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "layers", "RequestId": "1", "HostId": "2"}',
        b'{"Records": []}',
        b'{"Records": null}',
    ],
)
def test_deletions_and_other_events_announce_nothing(body: bytes) -> None:
    assert _parse(body) == []


@pytest.mark.parametrize("dialect", [minio_event, ceph_event, seaweedfs_event])
@pytest.mark.parametrize(
    "key",
    [
        "probe",
        "sha256/",
        "sha256/../../etc/passwd",
        f"sha256/{_DIGEST.upper()}",
        f"sha256/{_DIGEST}.part",
        f"sha256/{_DIGEST}/x",
        f"sha512/{_DIGEST}",
        f"a/sha256/{_DIGEST}",
        f" sha256/{_DIGEST}",
        f".uploads/{_DIGEST}/0001.part",
    ],
)
def test_objects_that_are_no_layers_announce_nothing(dialect: Any, key: str) -> None:  # noqa: ANN401 - a function
    assert _parse(dialect("layers", key)) == []


@pytest.mark.parametrize("dialect", [minio_event, ceph_event, seaweedfs_event])
def test_other_buckets_announce_nothing(dialect: Any) -> None:  # noqa: ANN401
    assert _parse(dialect("layers2", _KEY)) == []


def test_all_records_that_fit_into_a_notification_are_taken() -> None:
    digests = [f"{number:064x}" for number in range(2500)]
    events = [json.loads(minio_event("layers", f"sha256/{digest}"))["Records"] for digest in digests]
    assert _parse(json.dumps({"Records": list(chain(*events))}).encode()) == digests


def test_a_raw_key_is_not_decoded() -> None:
    # Ceph does not encode keys, so this object really is called so.
    assert _parse(ceph_event("layers", _KEY.replace("/", "%2F"))) == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"layers", b'{"a": 1} {"b": 2}', b"[" * 100_000])
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(NotificationError, match=r"^the body is not JSON: ") as caught:
        _parse(body)
    assert not isinstance(caught.value, UnknownDialectError)


@pytest.mark.parametrize(
    "document", [None, 1, "text", [], {}, {"records": []}, {"Service": "Amazon S3"}, [{"Records": []}]]
)
def test_json_in_no_dialect_is_refused(document: object) -> None:
    with pytest.raises(UnknownDialectError, match="no known dialect"):
        _parse(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"Records": {}}, "S3 records, but Records: Input should be a valid list"),
        ({"Records": [None]}, r"S3 records, but Records\.0: "),
        (
            {"Records": [{"eventName": "s3:ObjectCreated:Put"}]},
            r"Records\.0\.eventSource: Field required; Records\.0\.s3",
        ),
        ({"Records": [{"eventName": 1, "eventSource": "x", "s3": {}}]}, r"eventName: .*s3\.bucket: Field required"),
        ({"event_type": "create"}, "a SeaweedFS event, but key: Field required"),
        ({"event_type": "made", "key": "k", "message": {}}, "event_type: Input should be 'create', 'update'"),
        ({"event_type": "create", "key": "k", "message": []}, "message: "),
    ],
)
def test_a_broken_form_is_refused_with_the_field_that_is_wrong(document: object, problem: str) -> None:
    with pytest.raises(UnknownDialectError, match=problem):
        _parse(json.dumps(document).encode())
