import asyncio
import dataclasses
import hashlib
import secrets
import time
import traceback
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from harness.ceph import CephRGW
from harness.s3 import S3Access, s3_client
from services.common.archive.model import LayerArchive, MediaType
from services.common.arriving_file import ArrivingFile
from services.common.digest import Digest
from services.common.object_store.body import MemoryPart
from services.common.object_store.bucket import Bucket
from services.common.object_store.errors import (
    AccessDeniedError,
    BucketMissingError,
    ChecksumMismatchError,
    ObjectConflictError,
    ObjectMissingError,
    ObjectStoreError,
    ObjectTooLargeError,
    PreconditionFailedError,
)
from services.common.object_store.model import StoredLayer
from services.common.object_store.store import ObjectStore
from services.common.object_store.term import Term
from services.common.repository_name import RepositoryName
from tests.common.object_store.conftest import store_settings
from tests.support.layer_files import random_archive

pytestmark = pytest.mark.asyncio(loop_scope="session")

REPOSITORY = RepositoryName("test.cern.ch")
SMALL = 300_000
LARGE = (13 << 20) + 5  # three parts, the last one short


@pytest.fixture(params=[SMALL, LARGE], ids=["whole", "in-parts"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> LayerArchive:
    return random_archive(tmp_path / "archive", request.param)


async def test_an_archive_comes_back_as_it_was_with_its_description(
    store: ObjectStore, archive: LayerArchive, tmp_path: Path
) -> None:
    assert await store.upload(archive, repository=REPOSITORY)

    layer = await store.download(archive.digest, tmp_path / "copy")

    assert (tmp_path / "copy").read_bytes() == archive.path.read_bytes()
    assert layer == await store.head(archive.digest)
    assert layer == StoredLayer(
        digest=archive.digest,
        size=archive.size,
        last_modified=layer.last_modified,
        diff_id=archive.diff_id,
        uncompressed_size=archive.uncompressed_size,
        media_type=MediaType.TAR_ZSTD,
        repository=REPOSITORY,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "copy"]


async def test_a_second_upload_changes_nothing(store: ObjectStore, archive: LayerArchive, s3_access: S3Access) -> None:
    assert await store.upload(archive, repository=REPOSITORY)
    first = await store.head(archive.digest)

    assert not await store.upload(archive, repository=REPOSITORY)

    assert await store.head(archive.digest) == first
    assert await _uploads_in_progress(s3_access, archive.digest) == []


async def test_uploads_of_the_same_archive_at_the_same_time_all_succeed(
    store: ObjectStore, archive: LayerArchive, tmp_path: Path
) -> None:
    await asyncio.gather(*(store.upload(archive, repository=REPOSITORY) for _ in range(4)))

    await store.download(archive.digest, tmp_path / "copy")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"diff_id": Digest("b" * 64)}, "its diff ID is [0-9a-f]{64}, not b{64}"),
        ({"repository": RepositoryName("other.cern.ch")}, "its repository is test.cern.ch, not other.cern.ch"),
    ],
    ids=["diff ID", "repository"],
)
async def test_an_object_that_contradicts_the_archive_is_a_conflict(
    store: ObjectStore, archive: LayerArchive, change: dict[str, str], named: str
) -> None:
    await store.upload(archive, repository=REPOSITORY)
    changed = dict(change)
    repository = RepositoryName(changed.pop("repository", REPOSITORY))

    with pytest.raises(ObjectConflictError, match=named):
        await store.upload(dataclasses.replace(archive, **changed), repository=repository)  # type: ignore[arg-type]


async def test_a_foreign_object_under_the_digest_is_a_conflict(
    store: ObjectStore, archive: LayerArchive, s3_access: S3Access
) -> None:
    await _put(s3_access, archive.digest, b"something else")

    with pytest.raises(ObjectConflictError, match=f"its size is 14, not {archive.size}.*diff ID is not given"):
        await store.upload(archive, repository=REPOSITORY)

    assert await _uploads_in_progress(s3_access, archive.digest) == []


async def test_an_archive_damaged_on_disk_is_not_stored(
    store: ObjectStore, archive: LayerArchive, s3_access: S3Access
) -> None:
    with archive.path.open("r+b") as file:
        file.seek(archive.size - 1000)
        file.write(secrets.token_bytes(8))

    with pytest.raises(ChecksumMismatchError, match=f"{archive.path} has the sha256 [0-9a-f]+, .* made again"):
        await store.upload(archive, repository=REPOSITORY)

    assert await store.head(archive.digest) is None
    assert await _uploads_in_progress(s3_access, archive.digest) == []


async def test_an_archive_of_another_size_is_not_stored(store: ObjectStore, archive: LayerArchive) -> None:
    with archive.path.open("ab") as file:
        file.write(b"more")

    with pytest.raises(ChecksumMismatchError, match=f"has {archive.size + 4} bytes"):
        await store.upload(archive, repository=REPOSITORY)


async def test_an_object_without_its_digest_does_not_appear(
    store: ObjectStore, s3_access: S3Access, tmp_path: Path
) -> None:
    digest = Digest(secrets.token_hex(32))
    await _put(s3_access, digest, b"forged")

    with pytest.raises(ChecksumMismatchError, match=f"sha256/{digest} in bucket .* damaged or forged"):
        await store.download(digest, tmp_path / "copy")

    assert list(tmp_path.iterdir()) == []


async def test_an_archive_arrives_in_a_file_for_whoever_reads_it(
    store: ObjectStore, archive: LayerArchive, tmp_path: Path
) -> None:
    await store.upload(archive, repository=REPOSITORY)
    with ArrivingFile(tmp_path / "arriving") as file:
        stored = await store.receive(archive.digest, file)
        assert (stored.digest, stored.size, file.size) == (archive.digest, archive.size, archive.size)
    assert (tmp_path / "arriving").read_bytes() == archive.path.read_bytes()


async def test_an_object_over_the_limit_is_not_downloaded(
    s3_access: S3Access, archive: LayerArchive, tmp_path: Path
) -> None:
    async with ObjectStore(settings=store_settings(s3_access, object_limit=archive.size - 1)) as store:
        await store.upload(archive, repository=REPOSITORY)

        with pytest.raises(ObjectTooLargeError, match=f"has {archive.size} bytes, more than LAYER_STORE_OBJECT_LIMIT"):
            await store.download(archive.digest, tmp_path / "copy")

    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


async def test_a_missing_object_is_told_apart(store: ObjectStore, tmp_path: Path) -> None:
    digest = Digest(secrets.token_hex(32))

    assert await store.head(digest) is None
    with pytest.raises(ObjectMissingError, match="there is no such object"):
        await store.download(digest, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "metadata",
    [{"diff-id": "../../etc"}, {"uncompressed-size": "-1"}, {"uncompressed-size": "9" * 40}, {"repository": "A/b"}],
    ids=["diff ID", "negative size", "huge size", "repository"],
)
async def test_metadata_of_another_form_are_refused(
    store: ObjectStore, s3_access: S3Access, tmp_path: Path, metadata: dict[str, str]
) -> None:
    digest = Digest(secrets.token_hex(32))
    await _put(s3_access, digest, b"hostile", **metadata)

    with pytest.raises(ObjectConflictError, match="its metadata are not a layer's"):
        await store.head(digest)
    with pytest.raises(ObjectConflictError, match="its metadata are not a layer's"):
        await store.download(digest, tmp_path / "copy")


async def test_a_foreign_content_type_is_unknown_and_no_error(store: ObjectStore, s3_access: S3Access) -> None:
    digest = Digest(secrets.token_hex(32))
    await _put(s3_access, digest, b"plain")

    layer = await store.head(digest)

    assert layer is not None
    assert layer.media_type is None
    assert layer.repository is None


@pytest.mark.usefixtures("pages_of_two")
async def test_a_listing_goes_over_every_page_and_leaves_out_what_is_no_layer(empty_bucket: S3Access) -> None:
    digests = sorted(secrets.token_hex(32) for _ in range(5))
    async with s3_client(empty_bucket) as client:
        for key in [*(f"sha256/{name}" for name in [*digests, "no-digest", "sub/dir"]), "other"]:
            await client.put_object(Bucket=empty_bucket.bucket, Key=key, Body=b"x")

    async with ObjectStore(settings=store_settings(empty_bucket)) as store:
        with capture_logs() as logs:
            layers = [layer async for layer in store.list_layers()]

    assert [layer.digest for layer in layers] == digests
    assert {layer.size for layer in layers} == {1}
    assert [entry["key"] for entry in logs] == ["sha256/no-digest", "sha256/sub/dir"]


async def test_an_empty_bucket_lists_nothing(empty_bucket: S3Access) -> None:
    async with ObjectStore(settings=store_settings(empty_bucket)) as store:
        assert [layer async for layer in store.list_layers()] == []


async def test_a_missing_bucket_is_named(ceph: CephRGW, archive: LayerArchive, tmp_path: Path) -> None:
    # SeaweedFS makes a missing bucket itself.
    access = dataclasses.replace(ceph.access, bucket="nobody-made-this")
    async with ObjectStore(settings=store_settings(access)) as store:
        with pytest.raises(BucketMissingError, match=r"bucket nobody-made-this at http://.*LAYER_STORE_BUCKET"):
            await store.check()
        with pytest.raises(BucketMissingError):
            await store.head(archive.digest)
        with pytest.raises(BucketMissingError):
            await store.upload(archive, repository=REPOSITORY)
        with pytest.raises(BucketMissingError):
            await store.download(archive.digest, tmp_path / "copy")
        with pytest.raises(BucketMissingError):
            [layer async for layer in store.list_layers()]


async def test_wrong_keys_are_refused_and_not_shown(s3_access: S3Access, archive: LayerArchive, tmp_path: Path) -> None:
    access = dataclasses.replace(s3_access, secret_key=secrets.token_hex(20))
    async with ObjectStore(settings=store_settings(access)) as store:
        for call in (
            store.check(),
            store.head(archive.digest),
            store.upload(archive, repository=REPOSITORY),
            store.download(archive.digest, tmp_path / "copy"),
        ):
            with pytest.raises(AccessDeniedError, match="access denied: check LAYER_STORE_ACCESS_KEY") as refusal:
                await call
            shown = "".join(traceback.format_exception(refusal.value)) + repr(refusal.value)
            assert access.secret_key not in shown
            assert access.access_key not in shown


async def test_the_profiles_of_who_started_the_program_have_no_say(
    s3_access: S3Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("[default]\nendpoint_url = http://127.0.0.1:9\nregion = mars-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "missing"))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    async with ObjectStore(settings=store_settings(s3_access)) as store:
        await store.check()


async def _put(access: S3Access, digest: Digest, content: bytes, **metadata: str) -> None:
    async with s3_client(access) as client:
        await client.put_object(Bucket=access.bucket, Key=f"sha256/{digest}", Body=content, Metadata=metadata)


async def _uploads_in_progress(access: S3Access, digest: Digest) -> list[str]:
    async with s3_client(access) as client:
        answer = await client.list_multipart_uploads(Bucket=access.bucket, Prefix=f"sha256/{digest}")
        return [upload["UploadId"] for upload in answer.get("Uploads", ())]


async def test_a_request_whose_term_is_over_or_whose_condition_fails_is_refused(
    empty_bucket: S3Access,
) -> None:
    now = int(time.time())
    over, holds = Term(now - 3700, 100), Term(now - 3700, 7200)
    source = {"Bucket": empty_bucket.bucket, "Key": "first"}
    async with Bucket.open(store_settings(empty_bucket)) as bucket:

        async def put(text: bytes, term: Term | None = None, **condition: Any) -> str:  # noqa: ANN401 - whichever
            body = MemoryPart(memoryview(text), hashlib.sha256(text).hexdigest())
            answer = await bucket.request("put_object", doing="putting", key="first", body=body, term=term, **condition)
            return str(answer["ETag"]).strip('"')

        async def copy(term: Term) -> None:
            await bucket.request("copy_object", doing="copying", key="second", CopySource=source, term=term)

        async def delete(key: str, term: Term) -> None:
            await bucket.request("delete_objects", doing="deleting", Delete={"Objects": [{"Key": key}]}, term=term)

        first = await put(b"1", IfNoneMatch="*")
        second = await put(b"2", holds, IfMatch=first)
        await copy(holds)
        await delete("second", holds)

        async def is_refused(request: Awaitable[object], error: type[ObjectStoreError]) -> None:
            with pytest.raises(error):
                await request

        await is_refused(put(b"3", holds, IfMatch=first), PreconditionFailedError)
        await is_refused(put(b"3", holds, IfNoneMatch="*"), PreconditionFailedError)
        await is_refused(put(b"3", over), AccessDeniedError)
        await is_refused(copy(over), AccessDeniedError)
        await is_refused(delete("first", over), AccessDeniedError)
        assert await put(b"4", IfMatch=second) != second
        with pytest.raises(ObjectMissingError):
            await bucket.request("head_object", doing="looking for", key="second")
