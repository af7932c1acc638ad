"""A registry with images in it, an object store, and a publisher."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from harness.s3 import S3Access
from harness.seaweedfs import SeaweedFS
from tests.support.commands import Ended, docker2cvmfs
from tests.support.notifications import ceph_event
from tests.support.object_stores import new_bucket
from tests.support.oci import write_image
from tests.support.publisher import PublisherProcess
from tests.support.registries import RegistryServer
from tests.support.tars import archive, member

LAYERS = (
    archive(member(b"base", b"b" * 300_000)),
    archive(),
    archive(member(b".wh.base"), member(b"other", b"o" * 5_000)),
    archive(),
    archive(member(b"base", b"b" * 300_000)),
)
"""Layers with a whiteout, empty ones, and the same one twice."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Everything that a conversion needs."""

    registry: RegistryServer
    access: S3Access
    publisher: PublisherProcess

    @property
    def image(self) -> str:
        """An image of several layers."""
        return f"{self.registry.address}/converted:1"

    async def run(self, command: str, *arguments: object) -> Ended:
        """Run a command with the object store's settings."""
        return await docker2cvmfs(command, "--insecure", *arguments, env=self.access.environment)

    async def announce(self, *digests: str) -> None:
        """Tell the publisher of layers, as a store does."""
        keys = [f"sha256/{digest}" for digest in digests]
        assert await self.publisher.announce(ceph_event(self.access.bucket, *keys)) == 204


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(seaweedfs: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A site of the module's own; its publisher hears of layers from tests only."""
    directory = tmp_path_factory.mktemp("site")
    write_image(directory / "image", LAYERS, tag="1")
    async with new_bucket(seaweedfs.access) as access:
        publisher = PublisherProcess(directory / "publisher", access, {"PUBLISHER_SWEEP_INTERVAL": "3600"})
        async with RegistryServer.run(directory / "registry") as registry, publisher.running():
            await registry.push(f"oci:{directory / 'image'}:1", "converted:1", "--preserve-digests")
            yield Site(registry=registry, access=access, publisher=publisher)
