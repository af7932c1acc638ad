"""Small objects, put with little work for each, by whichever server."""

import dataclasses
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from harness.s3 import S3Access, s3_client
from services.common.object_store.bucket import Bucket
from services.common.object_store.errors import AccessDeniedError, ObjectStoreError, StoreUnavailableError
from services.common.object_store.small import SmallPuts
from tests.common.object_store.conftest import store_settings
from tests.support.fault_proxy import Answer, Fault, FaultProxy, cut

CONTENT = b"content" * 100


@asynccontextmanager
async def opened(access: S3Access, **overrides: object) -> AsyncIterator[SmallPuts]:
    async with Bucket.open(store_settings(access, **overrides)) as bucket, SmallPuts.open(bucket) as small:
        yield small


async def put(small: SmallPuts, key: str, content: bytes = CONTENT) -> None:
    digest = hashlib.sha256(content).digest()
    await small.put(key, content, digest, cache_control="max-age=5", content_type="text/plain")


async def stored(access: S3Access, key: str) -> tuple[bytes, str, str]:
    """Return content, cache control and type of an object."""
    async with s3_client(access) as client:
        answer = await client.get_object(Bucket=access.bucket, Key=key)
        async with answer["Body"] as body:
            return await body.read(), answer["CacheControl"], answer["ContentType"]


@pytest.mark.parametrize("content", [b"", b"x", CONTENT, bytes(range(256)) * 256], ids=len)
async def test_one_request_puts_an_object(s3_access: S3Access, content: bytes) -> None:
    """Signed as the server wants it: it is not asked a second time."""
    key = f"small/{secrets.token_hex(8)}/a-b_c.d~e"
    async with (
        FaultProxy.before(s3_access.endpoint) as proxy,
        opened(dataclasses.replace(s3_access, endpoint=proxy.endpoint)) as small,
    ):
        await put(small, key, content)
        await put(small, key, content)  # over what is there
        assert proxy.requests == [f"PUT /{s3_access.bucket}/{key} HTTP/1.1"] * 2
    assert await stored(s3_access, key) == (content, "max-age=5", "text/plain")


async def test_a_key_of_any_characters(s3_access: S3Access) -> None:
    key = f"small/{secrets.token_hex(8)} +%=&é"
    async with opened(s3_access) as small:
        await put(small, key)
    assert await stored(s3_access, key) == (CONTENT, "max-age=5", "text/plain")


@pytest.mark.parametrize(
    "fault",
    [
        Fault("^PUT ", times=2, answer=Answer(503, "SlowDown")),
        Fault("^PUT ", times=1, answer=Answer(307, "TemporaryRedirect")),
        Fault("^PUT ", times=2, request=cut(300)),
        Fault("^PUT ", times=2, response=cut(0)),
    ],
    ids=["overloaded", "redirected", "broken off", "no answer"],
)
async def test_what_fails_is_put_as_any_other_object(s3_access: S3Access, fault: Fault) -> None:
    key = f"small/{secrets.token_hex(8)}"
    fault = dataclasses.replace(fault)
    async with (
        FaultProxy.before(s3_access.endpoint, fault) as proxy,
        opened(dataclasses.replace(s3_access, endpoint=proxy.endpoint)) as small,
    ):
        await put(small, key)
        assert fault.times == 0
    assert await stored(s3_access, key) == (CONTENT, "max-age=5", "text/plain")


async def test_what_goes_on_failing_is_told(s3_access: S3Access) -> None:
    fault = Fault("^PUT ", times=10**6, answer=Answer(503, "SlowDown"))
    async with (
        FaultProxy.before(s3_access.endpoint, fault) as proxy,
        opened(dataclasses.replace(s3_access, endpoint=proxy.endpoint), retry_seconds=0.5) as small,
    ):
        with pytest.raises(StoreUnavailableError, match="HTTP 503 SlowDown"):
            await put(small, "small/never")


async def test_damage_on_the_way_is_found(s3_access: S3Access) -> None:
    """By the server, since the digest is signed."""
    key = f"small/{secrets.token_hex(8)}"
    async with opened(s3_access) as small:
        with pytest.raises(ObjectStoreError):
            await small.put(key, CONTENT, hashlib.sha256(b"else").digest(), cache_control="-", content_type="a/b")


async def test_wrong_keys_are_refused(s3_access: S3Access) -> None:
    async with opened(dataclasses.replace(s3_access, secret_key=secrets.token_hex(20))) as small:
        with pytest.raises(AccessDeniedError):
            await put(small, "small/refused")


async def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # noqa: ARG001
    seen = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(str(request.url))
        return web.Response()

    server = web.Server(answer)
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{runner.addresses[0][1]}")
        monkeypatch.setenv("no_proxy", "")
        access = S3Access(endpoint="http://store.example.org:81", bucket="layers", access_key="a", secret_key="b")
        async with opened(access) as small:
            await put(small, "small/object")
    finally:
        await runner.cleanup()
    assert seen == ["http://store.example.org:81/layers/small/object"]
