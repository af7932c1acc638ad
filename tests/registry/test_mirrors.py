"""Mirrors: asked first, trusted with nothing but their own credentials, and never the last word."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.common.digest import Digest
from services.registry.client import RegistryClient
from services.registry.credentials import DockerCredentials
from services.registry.errors import ImageMissingError
from services.registry.mirrors import Mirror
from services.registry.platform import Platform
from services.registry.reference import ImageReference
from tests.registry.conftest import LAYERS
from tests.support.registries import RegistryServer, patient
from tests.support.registry_faults import Effect, Fault, FaultyRegistry, challenged, changed, cut, page, refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

AMD64 = Platform.parse("linux/amd64")
LAYER = LAYERS[0]
DIGEST = Digest(hashlib.sha256(LAYER).hexdigest())


@asynccontextmanager
async def mirrored(
    registry: RegistryServer, *, path: str = "", credentials: DockerCredentials | None = None
) -> AsyncIterator[tuple[FaultyRegistry, FaultyRegistry, RegistryClient, ImageReference]]:
    """Give a mirror, what it is the mirror of, and a client that knows of both."""
    async with FaultyRegistry.before(registry.address) as mirror, FaultyRegistry.before(registry.address) as origin:
        options = patient(mirrors={origin.address: Mirror.parse(mirror.address + path)})
        if credentials is not None:
            options = patient(mirrors=options.mirrors, credentials=credentials)
        async with RegistryClient(options=options) as client:
            yield mirror, origin, client, ImageReference.parse(f"{origin.address}/layers:1")


async def whole(client: RegistryClient, reference: ImageReference) -> bytes:
    return b"".join([piece async for piece in client.blob(reference, DIGEST, len(LAYER))])


async def test_images_are_pulled_from_the_mirror_alone(registry: RegistryServer) -> None:
    async with mirrored(registry) as (mirror, origin, client, reference):
        image = await client.image(reference, AMD64)
        assert image.reference.name == reference.name
        await client.head(reference)
        assert await client.tags(reference) == ["1"]
        assert await whole(client, reference) == LAYER
        assert not origin.requests
        assert mirror.requests


async def test_what_is_pushed_goes_to_the_registry(registry: RegistryServer) -> None:
    async with mirrored(registry) as (mirror, origin, client, reference):
        await client.push_blob(reference, b"pushed")
        assert origin.requests
        assert not mirror.requests


async def test_a_path_of_the_mirror_comes_before_the_repository(registry: RegistryServer) -> None:
    async with mirrored(registry, path="/proxy/hub") as (mirror, _, client, reference):
        await client.head(reference)  # the mirror does not have it there, the registry has
        assert mirror.seen("HEAD /v2/proxy/hub/layers/manifests/1")


@pytest.mark.parametrize("fault", [refused(500), refused(401), refused(404), page(200), page(404), cut(10)])
async def test_what_the_mirror_fails_to_give_comes_from_the_registry(registry: RegistryServer, fault: Effect) -> None:
    async with mirrored(registry) as (mirror, origin, client, reference):
        mirror.faults.append(Fault(".", fault, times=1000))
        await client.image(reference, AMD64)
        assert await whole(client, reference) == LAYER
        assert origin.seen("/manifests/1")


async def test_the_registry_goes_on_where_the_mirror_broke_off(registry: RegistryServer) -> None:
    async with mirrored(registry) as (mirror, origin, client, reference):
        mirror.faults += [Fault("/blobs/", cut(100_000)), Fault("/blobs/", refused(500), times=1000)]
        assert await whole(client, reference) == LAYER
        assert [headers.get("Range") for headers in origin.seen("/blobs/")] == ["bytes=100000-"]


async def test_what_the_mirror_gives_damaged_comes_from_the_registry(registry: RegistryServer) -> None:
    async with mirrored(registry) as (mirror, origin, client, reference):
        mirror.faults.append(Fault("/(blobs|manifests)/", changed(bytes.swapcase), times=1000))
        image = await client.image(reference, AMD64)
        assert hashlib.sha256(image.config).hexdigest() == image.config_digest
        assert origin.seen(f"/blobs/{image.config_digest.oci}")


async def test_only_the_registry_itself_can_say_that_an_image_is_missing(registry: RegistryServer) -> None:
    async with mirrored(registry) as (mirror, origin, client, _):
        missing = ImageReference.parse(f"{origin.address}/layers:none")
        with pytest.raises(ImageMissingError, match=origin.address):
            await client.head(missing)
        assert mirror.requests
        assert origin.requests


async def test_a_mirror_never_gets_the_registrys_credentials(registry: RegistryServer, tmp_path: Path) -> None:
    credentials = DockerCredentials(path=tmp_path / "config.json")
    async with mirrored(registry, credentials=credentials) as (mirror, origin, client, reference):
        auth = base64.b64encode(b"me:sesame").decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {origin.address: {"auth": auth}}}))
        mirror.faults.append(Fault(".", challenged('Basic realm="x"'), times=1000))
        origin.faults.append(Fault("HEAD ", challenged('Basic realm="x"')))
        await client.head(reference)
        assert origin.seen("HEAD ")[-1]["Authorization"] == f"Basic {auth}"
        assert mirror.requests
        assert not any("Authorization" in headers for _, headers in mirror.requests)
