"""What a tag names now, and when it is certain that it names nothing."""

import hashlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.registry.client import RegistryClient
from services.registry.documents import INDEX_TYPES, MANIFEST_TYPES
from services.registry.errors import (
    AccessDeniedError,
    DigestMismatchError,
    ImageMissingError,
    InvalidAnswerError,
    RegistryError,
    RegistryRefusedError,
    RegistryUnavailableError,
)
from services.registry.images import ManifestHead
from services.registry.reference import ImageReference
from tests.support.registries import RegistryServer, patient
from tests.support.registry_faults import Effect, Fault, FaultyRegistry, changed, page, refused, without_headers

pytestmark = pytest.mark.asyncio(loop_scope="session")

ALWAYS = 1000


@pytest_asyncio.fixture(loop_scope="session")
async def client() -> AsyncIterator[RegistryClient]:
    async with RegistryClient(options=patient()) as client:
        yield client


async def head(client: RegistryClient, proxy: FaultyRegistry, name: str = "layers:1") -> ManifestHead:
    return await client.head(ImageReference.parse(f"{proxy.address}/{name}"))


async def expected(client: RegistryClient, registry: RegistryServer) -> ManifestHead:
    manifest = await client.manifest(ImageReference.parse(f"{registry.address}/layers:1"))
    return ManifestHead(digest=manifest.digest, media_type=manifest.media_type)


async def test_one_request_without_content_does(client: RegistryClient, registry: RegistryServer) -> None:
    async with FaultyRegistry.before(registry.address) as proxy:
        assert await head(client, proxy) == await expected(client, registry)
        ((line, headers),) = proxy.requests
    assert line == "HEAD /v2/layers/manifests/1"
    for media_type in (*INDEX_TYPES, *MANIFEST_TYPES):
        assert media_type in headers["Accept"]


@pytest.mark.parametrize(
    "effect",
    [
        without_headers("Docker-Content-Digest"),
        without_headers("Content-Type"),
        changed(bytes, Docker_Content_Digest="sha512:abc"),
        page(200),
        refused(405),
        refused(501),
        page(404),
    ],
)
async def test_what_the_head_does_not_say_is_read(
    client: RegistryClient, registry: RegistryServer, effect: Effect
) -> None:
    async with FaultyRegistry.before(registry.address, Fault("HEAD ", effect)) as proxy:
        assert await head(client, proxy) == await expected(client, registry)
        assert [line for line, _ in proxy.requests] == [
            f"{method} /v2/layers/manifests/1" for method in ("HEAD", "GET")
        ]


async def test_what_the_registry_knows_to_be_missing_is_missing(
    client: RegistryClient, registry: RegistryServer
) -> None:
    async with FaultyRegistry.before(registry.address) as proxy:
        with pytest.raises(ImageMissingError, match="MANIFEST_UNKNOWN"):
            await head(client, proxy, "layers:2")
        with pytest.raises(ImageMissingError, match="MANIFEST_UNKNOWN"):
            await head(client, proxy, "nothing:1")
        assert not proxy.seen("tags/list")  # nobody reads suggestions here


@pytest.mark.parametrize(
    ("effect", "kind"),
    [
        (refused(401), RegistryError),
        (refused(403), AccessDeniedError),
        (refused(404, text="no such route"), RegistryRefusedError),
        (page(404), RegistryRefusedError),
        (page(410), RegistryRefusedError),
        (refused(429, retry_after="0"), RegistryUnavailableError),
        (refused(429, retry_after="1000"), RegistryUnavailableError),
        (refused(500), RegistryUnavailableError),
        (refused(503), RegistryUnavailableError),
        (page(200), InvalidAnswerError),
    ],
)
async def test_a_registry_that_fails_has_not_lost_the_image(
    registry: RegistryServer, effect: Effect, kind: type[RegistryError]
) -> None:
    async with (
        FaultyRegistry.before(registry.address, Fault("/manifests/", effect, times=ALWAYS)) as proxy,
        RegistryClient(options=patient(attempts=2)) as client,
    ):
        with pytest.raises(kind) as caught:
            await head(client, proxy)
    assert not isinstance(caught.value, ImageMissingError)


async def test_a_registry_that_is_away_has_not_lost_the_image(registry: RegistryServer) -> None:
    async with FaultyRegistry.before(registry.address) as proxy:
        pass
    async with RegistryClient(options=patient(attempts=1)) as client:
        with pytest.raises(RegistryUnavailableError, match="cannot be reached"):
            await head(client, proxy)


async def test_a_digest_is_answered_with_the_same(client: RegistryClient, registry: RegistryServer) -> None:
    known = await expected(client, registry)
    other = f"sha256:{hashlib.sha256(b'other').hexdigest()}"
    fault = Fault("HEAD ", changed(bytes, Docker_Content_Digest=other))
    async with FaultyRegistry.before(registry.address, fault) as proxy:
        with pytest.raises(DigestMismatchError, match=f"answers with {other}"):
            await head(client, proxy, f"layers@{known.digest.oci}")
        assert await head(client, proxy, f"layers@{known.digest.oci}") == known
