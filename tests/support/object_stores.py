"""Fixtures of real S3 servers: each is started once, where a test first asks for it."""

import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import pytest_asyncio

from harness.ceph import CephRGW
from harness.s3 import S3Access, create_bucket, remove_bucket, s3_client
from harness.seaweedfs import SeaweedFS

__all__ = ["bucket", "ceph", "empty_bucket", "new_bucket", "s3_access", "seaweedfs"]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SeaweedFS]:
    """A SeaweedFS server that announces nothing."""
    server = SeaweedFS(tmp_path_factory.mktemp("seaweedfs"))
    await server.start()
    try:
        yield server
    finally:
        await server.kill()  # an orderly stop takes seconds, and the data are of no use


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ceph(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[CephRGW]:
    """A Ceph gateway that announces nothing, unless a test makes it."""
    if shutil.which("radosgw") is None:
        pytest.skip("Ceph is missing: apt install ceph-mon ceph-osd radosgw ceph-common")
    server = CephRGW(tmp_path_factory.mktemp("ceph"))
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


@pytest.fixture(scope="session", params=["seaweedfs", "ceph"])
def s3_access(request: pytest.FixtureRequest) -> S3Access:
    """A bucket at each kind of server in turn; other tests use it as well, under other digests."""
    access: S3Access = request.getfixturevalue(request.param).access
    return access


@pytest.fixture
async def bucket(seaweedfs: SeaweedFS) -> AsyncIterator[S3Access]:
    """A bucket of the test's own, which announces nothing."""
    async with new_bucket(seaweedfs.access) as access:
        yield access


@pytest.fixture
async def empty_bucket(s3_access: S3Access) -> AsyncIterator[S3Access]:
    """A bucket of the test's own at each kind of server in turn."""
    async with new_bucket(s3_access) as access:
        yield access


@asynccontextmanager
async def new_bucket(access: S3Access) -> AsyncIterator[S3Access]:
    """Have a bucket that nobody else uses at the server of another one, for a while."""
    access = replace(access, bucket=f"test-{uuid.uuid4()}")
    async with s3_client(access) as client:
        assert await create_bucket(client, access.bucket)
    try:
        yield access
    finally:
        async with s3_client(access) as client:
            await remove_bucket(client, access.bucket)
