"""A registry, and cosign with two key pairs: `good` and `other`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from services.converter.model import VerificationKey
from services.registry.client import RegistryClient
from services.registry.reference import ImageReference
from tests.support.cosign import Cosign
from tests.support.oci import write_image
from tests.support.registries import RegistryServer, impatient
from tests.support.tars import archive, member

NewImage = Callable[[str], Awaitable[tuple[ImageReference, str]]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def registry(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RegistryServer]:
    async with RegistryServer.run(tmp_path_factory.mktemp("registry") / "server") as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cosign(tmp_path_factory: pytest.TempPathFactory) -> Cosign:
    cosign = Cosign(tmp_path_factory.mktemp("cosign"))
    for name in ("good", "other"):
        await cosign.make_key(name)
    return cosign


@pytest_asyncio.fixture(loop_scope="session")
async def client() -> AsyncIterator[RegistryClient]:
    async with RegistryClient(options=impatient(read_timeout=60.0, connect_timeout=60.0)) as client:
        yield client


@pytest.fixture
def new_image(registry: RegistryServer, client: RegistryClient, tmp_path: Path) -> NewImage:
    """Push a new image to a repository; return its reference with its digest, and its name for cosign."""

    async def push(repository: str) -> tuple[ImageReference, str]:
        layout = tmp_path / repository.replace("/", "-")
        write_image(layout, (archive(member(b"file", repository.encode())),), tag="1")
        await registry.push(f"oci:{layout}:1", f"{repository}:1", "--preserve-digests")
        return await described(client, ImageReference.parse(f"{registry.address}/{repository}:1"))

    return push


async def described(client: RegistryClient, reference: ImageReference) -> tuple[ImageReference, str]:
    """Return a reference with its digest, and what cosign calls it."""
    manifest = await client.manifest(reference)
    image = f"{reference.authority}/{reference.repository}@{manifest.digest.oci}"
    return replace(reference, digest=manifest.digest), image


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def signed(
    registry: RegistryServer, cosign: Cosign, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ImageReference, RegistryServer, VerificationKey]:
    """An image that is signed by `good`, under the tag."""
    layout = tmp_path_factory.mktemp("layout") / "image"
    write_image(layout, (archive(member(b"file", b"signed")),), tag="1")
    await registry.push(f"oci:{layout}:1", "signed/tool:1", "--preserve-digests")
    async with RegistryClient(options=impatient(read_timeout=60.0, connect_timeout=60.0)) as client:
        reference, image = await described(client, ImageReference.parse(f"{registry.address}/signed/tool:1"))
    await cosign.sign(image, "good")
    return reference, registry, cosign.key("good")
