"""Archives that are uploaded while they arrive."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.s3 import S3Access, s3_client
from services.common.archive.model import MediaType
from services.common.digest import Digest
from services.common.object_store.errors import ChecksumMismatchError, ObjectConflictError
from services.common.object_store.model import AnnouncedLayer
from services.common.object_store.store import ObjectStore
from services.common.repository_name import RepositoryName

pytestmark = pytest.mark.asyncio(loop_scope="session")

REPOSITORY = RepositoryName("test.cern.ch")
DIFF_ID = Digest("d" * 64)
WHOLE = 300_000
PARTS = (13 << 20) + 5  # three parts, the last one short


class _BrokenError(Exception):
    pass


@pytest.fixture(params=[0, WHOLE, 6 << 20, 12 << 20, PARTS])
def content(request: pytest.FixtureRequest) -> bytes:
    size: int = request.param
    return secrets.token_bytes(size)


@pytest.fixture(params=[WHOLE, PARTS], ids=["whole", "in-parts"])
def damaged(request: pytest.FixtureRequest) -> bytes:
    return secrets.token_bytes(request.param)


def _announced(content: bytes, **overrides: object) -> AnnouncedLayer:
    values: dict[str, object] = {
        "digest": Digest(hashlib.sha256(content).hexdigest()),
        "diff_id": DIFF_ID,
        "size": len(content),
        "media_type": MediaType.TAR_GZIP,
        "repository": REPOSITORY,
    }
    return AnnouncedLayer(**(values | overrides))  # type: ignore[arg-type]  # the values of a test


async def _chunks(content: bytes, *, breaks: bool = False) -> AsyncIterator[bytes]:
    for offset in range(0, len(content), 100_003):
        yield content[offset : offset + 100_003]
    if breaks:
        raise _BrokenError


async def _nothing(access: S3Access, digest: Digest, store: ObjectStore) -> None:
    assert await store.head(digest) is None
    async with s3_client(access) as client:
        answer = await client.list_multipart_uploads(Bucket=access.bucket)
    assert [upload for upload in answer.get("Uploads", []) if digest in upload["Key"]] == []


async def test_a_stream_is_stored_under_its_digest(store: ObjectStore, content: bytes, tmp_path: Path) -> None:
    layer = _announced(content)
    assert await store.upload_stream(_chunks(content), layer)
    stored = await store.download(layer.digest, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert (stored.diff_id, stored.repository, stored.media_type) == (DIFF_ID, REPOSITORY, MediaType.TAR_GZIP)
    assert stored.uncompressed_size is None


async def test_what_is_stored_is_not_read_again(store: ObjectStore, damaged: bytes) -> None:
    layer = _announced(damaged)
    assert await store.upload_stream(_chunks(damaged), layer)

    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("nothing is to be read")
        yield b""

    assert not await store.upload_stream(unread(), layer)
    with pytest.raises(ObjectConflictError, match="its diff ID is"):
        await store.upload_stream(unread(), _announced(damaged, diff_id=Digest("e" * 64)))


@pytest.mark.parametrize("change", ["flipped", "short", "long"])
async def test_a_stream_that_is_not_the_layer_leaves_nothing(
    store: ObjectStore, s3_access: S3Access, damaged: bytes, change: str
) -> None:
    layer = _announced(damaged)
    sent = {
        "flipped": damaged[:-1] + bytes([damaged[-1] ^ 1]),
        "short": damaged[:-1],
        "long": damaged + b"x",
    }[change]
    with pytest.raises(ChecksumMismatchError, match=layer.digest):
        await store.upload_stream(_chunks(sent), layer)
    await _nothing(s3_access, layer.digest, store)


async def test_a_stream_that_breaks_off_leaves_nothing(store: ObjectStore, s3_access: S3Access, damaged: bytes) -> None:
    layer = _announced(damaged)
    with pytest.raises(_BrokenError):
        await store.upload_stream(_chunks(damaged, breaks=True), layer)
    await _nothing(s3_access, layer.digest, store)


async def test_a_cancelled_upload_leaves_nothing(store: ObjectStore, s3_access: S3Access, damaged: bytes) -> None:
    layer = _announced(damaged)
    stalled = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield damaged[:-1]
        stalled.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(store.upload_stream(stalling(), layer))
    await stalled.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    await _nothing(s3_access, layer.digest, store)


async def test_many_streams_share_the_room(store: ObjectStore) -> None:
    contents = [secrets.token_bytes(PARTS) for number in range(12)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(store.upload_stream(_chunks(item), _announced(item))) for item in contents]
    assert all(task.result() for task in tasks)
