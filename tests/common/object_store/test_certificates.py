"""A server whose certificate a private authority has issued."""

import hashlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from harness.s3 import S3Access
from services.common.object_store.bucket import Bucket
from services.common.object_store.errors import ObjectStoreError
from services.common.object_store.small import SmallPuts
from services.common.object_store.store import ObjectStore
from tests.common.object_store.conftest import store_settings
from tests.support.registries import Authority


@pytest_asyncio.fixture
async def authority(tmp_path: Path) -> Authority:
    return await Authority.make(tmp_path / "authority")


@pytest_asyncio.fixture
async def secured(authority: Authority) -> AsyncIterator[S3Access]:
    """A server that has every bucket."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*await authority.issue("server"))
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    yield S3Access(endpoint=f"https://127.0.0.1:{port}", bucket="layers", access_key="a", secret_key="b")
    await runner.cleanup()


async def test_an_unknown_authority_is_not_trusted(secured: S3Access) -> None:
    async with ObjectStore(settings=store_settings(secured, retry_seconds=0.5)) as store:
        with pytest.raises(ObjectStoreError, match="certificate"):
            await store.check()


async def test_one_that_the_environment_names_is(
    secured: S3Access, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.certificate))
    async with ObjectStore(settings=store_settings(secured)) as store:
        await store.check()


async def test_small_objects_are_sent_to_the_same_ones(
    secured: S3Access, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(b"content").digest()

    async def put() -> None:
        async with (
            Bucket.open(store_settings(secured, retry_seconds=0.5)) as bucket,
            SmallPuts.open(bucket) as small,
        ):
            await small.put("key", b"content", digest, cache_control="-", content_type="a/b")

    with pytest.raises(ObjectStoreError, match="certificate"):
        await put()
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.certificate))
    await put()
