"""A publisher as a process of its own, its HTTP interface, and layers to feed it with."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from harness.ports import free_ports
from harness.processes import DaemonError, Service, wait_until
from harness.s3 import S3Access
from services.common.archive.compression import write_archive
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerArchive
from services.common.digest import Digest
from services.common.object_store.store import ObjectStore
from services.common.repository_name import RepositoryName
from services.repository.layer import VerifiedLayer
from tests.support.cvmfs_server.standin import StandIn

__all__ = ["REPOSITORY", "TOKEN", "PublisherProcess", "cvmfs_publisher", "make_layer", "upload", "verified"]

REPOSITORY = RepositoryName("test.cern.ch")
TOKEN = "a-token-of-the-tests"  # noqa: S105


def make_layer(directory: Path, name: str, files: Mapping[str, str | bytes] | None = None) -> LayerArchive:
    """Write a layer archive of some files, or of one that makes it unique; `<name>.tree` may hold others already."""
    tree = directory / f"{name}.tree"
    tree.mkdir(parents=True, exist_ok=True)
    for path, content in ({"name": name} if files is None else files).items():
        target = tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
    return write_archive(tree, directory / f"{name}.tar.zst")


def verified(archive: LayerArchive) -> VerifiedLayer:
    """What the publisher makes of an archive that it has fetched."""
    return VerifiedLayer(
        path=archive.path,
        digest=archive.digest,
        diff_id=archive.diff_id,
        size=archive.size,
        uncompressed_size=archive.uncompressed_size,
        limits=ArchiveLimits(),
    )


async def upload(access: S3Access, *archives: LayerArchive, repository: RepositoryName = REPOSITORY) -> None:
    """Upload layers as the driver does."""
    async with ObjectStore(settings=access.settings) as store:
        for archive in archives:
            await store.upload(archive, repository=repository)


class PublisherProcess:
    """`python -m services.publisher`, which can be stopped, killed and started again.

    Parameters
    ----------
    directory
        Where its state, spool, repository and log are.
    access
        The bucket.
    settings
        Further environment variables; they win.
    """

    def __init__(self, directory: Path, access: S3Access, settings: Mapping[str, str] | None = None) -> None:
        (self.port,) = free_ports(1)
        self.access = access
        self.url = f"http://127.0.0.1:{self.port}"
        self.root = directory / "repository"
        self.state = directory / "state"
        self.spool = directory / "spool"
        self.environment = {
            **access.environment,
            "PUBLISHER_REPOSITORY": REPOSITORY,
            "PUBLISHER_DIRECTORY": str(self.root),
            "PUBLISHER_STATE": str(self.state),
            "PUBLISHER_SPOOL": str(self.spool),
            "PUBLISHER_EVENT_TOKEN": TOKEN,
            "PUBLISHER_PORT": str(self.port),
            "PUBLISHER_RETRY_FIRST": "0.1",
            "PUBLISHER_RETRY_LAST": "1",
            **(settings or {}),
        }
        self.daemon = Service(
            "publisher",
            "services.publisher",
            log=directory / "publisher.log",
            env=self.environment,
        )

    async def start(self) -> None:
        """Start it and wait until it answers."""

        async def answers() -> bool:
            try:
                await self.get("/healthz")
            except aiohttp.ClientError:
                return False
            return True

        await self.daemon.start(answers)

    async def refused(self, why: str) -> None:
        """Start it; it must end, and say why."""

        async def never() -> bool:
            return False

        with pytest.raises(DaemonError, match="ended with status 1") as raised:
            await self.daemon.start(never)
        assert why in str(raised.value)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["PublisherProcess"]:
        """Run it; at the end of the context it must end orderly."""
        async with self.ended():
            await self.start()
            yield self
            assert await self.daemon.stop() == 0, self.daemon.tail()

    @asynccontextmanager
    async def ended(self) -> AsyncIterator[None]:
        """Let it be started and killed at will; at the end of the context it does not run."""
        try:
            yield
        finally:
            await self.daemon.kill()

    async def kill(self) -> None:
        """End it at once; programs that it has started go on, since they are in sessions of their own."""
        await self.daemon.kill()

    async def get(self, path: str) -> Any:  # noqa: ANN401 - a JSON document
        """Ask for a document."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}{path}") as response:
            return await response.json()

    async def metrics(self) -> dict[str, float]:
        """Read the metrics."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as response:
            text = await response.text()
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    async def post(self, path: str, body: bytes = b"", *, token: str = TOKEN) -> int:
        """Ask for something to be done; return the status of the answer."""
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}{path}", data=body, headers=headers) as response,
        ):
            return response.status

    async def announce(self, body: bytes, *, token: str = TOKEN) -> int:
        """Post a notification; return the status of the answer."""
        return await self.post("/v1/events", body, token=token)

    async def retry(self, digest: Digest) -> int:
        """Ask for a retry; return the status of the answer."""
        return await self.post(f"/v1/layers/{digest}/retry")

    async def layer(self, digest: Digest) -> Any:  # noqa: ANN401 - a JSON document
        """What the publisher says of a layer."""
        return await self.get(f"/v1/layers/{digest}")

    async def becomes(self, digest: Digest, *states: str, timeout: float = 300) -> Any:  # noqa: ANN401, ASYNC109
        """Wait until a layer is in one of the states; return what the publisher says of it then."""
        seen: dict[str, Any] = {}

        async def there() -> bool:
            seen.clear()
            seen.update(await self.layer(digest))
            return seen.get("state") in states

        try:
            await wait_until(there, timeout=timeout, what=f"{digest} becomes {states}")
        except TimeoutError as error:
            raise AssertionError(f"{error}; it is {seen}\n{self.daemon.tail()}") from None
        # A layer that is tried again may be in another state by now.
        return seen

    async def published(self, *archives: LayerArchive, timeout: float = 300) -> list[int | None]:  # noqa: ASYNC109
        """Wait until layers are published; return their revisions."""
        shown = await asyncio.gather(*(self.becomes(item.digest, "published", timeout=timeout) for item in archives))
        return [layer["revision"] for layer in shown]


def cvmfs_publisher(directory: Path, access: S3Access, standin: StandIn, **settings: str) -> PublisherProcess:
    """A publisher through `cvmfs_server`, not started; further settings are named without their prefix."""
    environment = {
        **standin.environment,
        "PUBLISHER_REPOSITORY_KIND": "cvmfs_server",
        "PUBLISHER_CVMFS_MOUNT": str(standin.mount),
        "PUBLISHER_CVMFS_SPOOL": str(standin.spool),
        "PUBLISHER_CVMFS_CONFIGURATION": str(standin.configuration),
        **{f"PUBLISHER_{name.upper()}": value for name, value in settings.items()},
    }
    return PublisherProcess(directory, access, environment)
