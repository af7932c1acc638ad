"""An object store over each kind of server."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from harness.s3 import S3Access
from services.common.object_store.bucket import Bucket
from services.common.object_store.settings import ObjectStoreSettings
from services.common.object_store.store import ObjectStore

_SMALL_PAGES: dict[str, dict[str, Any]] = {
    "list_objects_v2": {"MaxKeys": 2},
    "list_multipart_uploads": {"MaxUploads": 2},
}


def store_settings(access: S3Access, **overrides: object) -> ObjectStoreSettings:
    """Settings that use parts as early as S3 allows; time-outs are for tests that set them."""
    limits: dict[str, object] = {
        "multipart_threshold": 6 << 20,
        "part_size": 5 << 20,
        "connect_timeout": 30,
        "read_timeout": 60,
        "retry_seconds": 60,
    }
    return ObjectStoreSettings.model_validate(access.settings.model_dump() | limits | overrides)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def store(s3_access: S3Access) -> AsyncIterator[ObjectStore]:
    """A store that tests share, since opening one takes a tenth of a second."""
    async with ObjectStore(settings=store_settings(s3_access)) as store:
        yield store


@pytest.fixture
def pages_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask servers for listings in pages of two: a thousand, what a page has, takes Ceph half a minute to store."""
    request = Bucket.request

    async def with_small_pages(self: Bucket, operation: str, **parameters: Any) -> Mapping[str, Any]:  # noqa: ANN401
        return await request(self, operation, **parameters, **_SMALL_PAGES.get(operation, {}))

    monkeypatch.setattr(Bucket, "request", with_small_pages)
