"""An object store over each kind of server, with little patience."""

from collections.abc import AsyncIterator

import pytest_asyncio

from harness.s3 import S3Access
from services.common.object_store import ObjectStore, ObjectStoreSettings


def impatient(access: S3Access, **overrides: object) -> ObjectStoreSettings:
    """Settings that fail in seconds and use parts as early as S3 allows."""
    limits: dict[str, object] = {
        "multipart_threshold": 6 << 20,
        "part_size": 5 << 20,
        "connect_timeout": 1,
        "read_timeout": 2,
        "retry_seconds": 5,
    }
    return ObjectStoreSettings.model_validate(access.settings.model_dump() | limits | overrides)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def store(s3_access: S3Access) -> AsyncIterator[ObjectStore]:
    """A store that tests share, since opening one takes a tenth of a second."""
    # No fault is injected here, so that only a busy machine could use the patience up.
    patience = {"connect_timeout": 10, "read_timeout": 60, "retry_seconds": 60}
    async with ObjectStore(settings=impatient(s3_access, **patience)) as store:
        yield store
