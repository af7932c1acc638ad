"""Uploads that a killed program left: their parts go when they are old, and nobody else's do."""

import secrets
from datetime import timedelta
from typing import Any

import pytest

from harness.s3 import S3Access, s3_client
from services.common.object_store.errors import ObjectStoreError
from services.common.object_store.store import ObjectStore
from tests.common.object_store.conftest import store_settings
from tests.support.fault_proxy import Answer, Fault, FaultProxy

PART = bytes(5 << 20)
NO_TIME = timedelta()


async def _begin(client: Any, access: S3Access, key: str) -> dict[str, str]:  # noqa: ANN401 - botocore has no types
    """Begin an upload and send a part of it."""
    upload = await client.create_multipart_upload(Bucket=access.bucket, Key=key)
    place = {"Bucket": access.bucket, "Key": key, "UploadId": upload["UploadId"]}
    await client.upload_part(**place, PartNumber=1, Body=PART)
    return place


async def _keys(client: Any, access: S3Access) -> list[str]:  # noqa: ANN401 - botocore has no types
    answer = await client.list_multipart_uploads(Bucket=access.bucket)
    return sorted(upload["Key"] for upload in answer.get("Uploads", ()))


async def test_old_uploads_of_layers_go_and_no_others(empty_bucket: S3Access) -> None:
    layers = sorted(f"sha256/{secrets.token_hex(32)}" for _ in range(3))
    others = ["backup/x", "sha256/no-layer"]
    async with s3_client(empty_bucket) as client, ObjectStore(settings=store_settings(empty_bucket)) as store:
        for key in (*layers, layers[0], *others):
            await _begin(client, empty_bucket, key)
        assert await store.abort_abandoned_uploads(timedelta(hours=1)) == 0
        assert await _keys(client, empty_bucket) == sorted([*layers, layers[0], *others])
        assert await store.abort_abandoned_uploads(NO_TIME) == 4
        assert await _keys(client, empty_bucket) == sorted(others)
        assert await store.abort_abandoned_uploads(NO_TIME) == 0


@pytest.mark.usefixtures("pages_of_two")
async def test_more_of_them_than_a_page(empty_bucket: S3Access) -> None:
    keys = sorted(f"sha256/{secrets.token_hex(32)}" for _ in range(5))
    async with s3_client(empty_bucket) as client, ObjectStore(settings=store_settings(empty_bucket)) as store:
        for key in keys:
            await client.create_multipart_upload(Bucket=empty_bucket.bucket, Key=key)
        assert await store.abort_abandoned_uploads(NO_TIME) == len(keys)
        assert await _keys(client, empty_bucket) == []


async def test_one_that_went_meanwhile_is_not_counted(empty_bucket: S3Access) -> None:
    async with FaultProxy.before(empty_bucket.endpoint, Fault("^DELETE ", answer=Answer(404, "NoSuchUpload"))) as proxy:
        async with s3_client(empty_bucket) as client:
            await _begin(client, empty_bucket, f"sha256/{secrets.token_hex(32)}")
        async with ObjectStore(settings=store_settings(empty_bucket, endpoint=proxy.endpoint)) as store:
            assert await store.abort_abandoned_uploads(NO_TIME) == 0
            assert await store.abort_abandoned_uploads(NO_TIME) == 1


async def test_a_store_that_does_not_let_it_be_done_is_named(empty_bucket: S3Access) -> None:
    async with (
        FaultProxy.before(empty_bucket.endpoint, Fault("uploads", answer=Answer(403, "AccessDenied"))) as proxy,
        ObjectStore(settings=store_settings(empty_bucket, endpoint=proxy.endpoint)) as store,
    ):
        with pytest.raises(ObjectStoreError, match=r"listing uploads .*access denied"):
            await store.abort_abandoned_uploads(NO_TIME)
