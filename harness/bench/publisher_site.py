"""Publishers for the rows about databases: one object store, one PostgreSQL server that syncs what it commits."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import aiohttp

from harness.http import answers
from harness.ports import free_ports
from harness.postgresql import PostgresqlServer
from harness.processes import Service
from harness.s3 import S3Access, create_bucket, s3_client
from harness.seaweedfs import SeaweedFS
from services.common.digest import Digest
from services.common.repository_name import RepositoryName
from services.publisher.settings import RepositoryKind
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.storage.bucket import BucketStorage
from services.repository.native.trust.keyring import KeyFiles
from tests.support.notifications import minio_event

__all__ = ["NAME", "BenchPublisher", "PublisherSite", "open_publisher_site"]

NAME: Final = RepositoryName("bench.example.org")


@dataclass(frozen=True, kw_only=True)
class BenchPublisher:
    """A publisher that runs, or may."""

    daemon: Service
    port: int
    token: str
    """What it wants to see of who announces layers."""
    access: S3Access
    """The bucket of layers."""
    state: Path
    """Its state."""

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        await self.daemon.start(lambda: answers(f"{self.url}/readyz"))

    async def announce(self, layers: Iterable[Digest]) -> None:
        """Post a notification of each layer, one after the other, as the object store would."""
        headers = {"Authorization": f"Bearer {self.token}"}
        async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as session:
            for layer in layers:
                body = minio_event(self.access.bucket, f"sha256/{layer}")
                async with session.post(f"{self.url}/v1/events", data=body):
                    pass

    def holder(self) -> str:
        """Return what it calls itself where it holds the lease of a repository in a bucket."""
        return (self.state / "native" / NAME / "holder").read_text()


@dataclass(frozen=True, kw_only=True)
class PublisherSite:
    """What publishers need."""

    directory: Path
    store: SeaweedFS
    postgresql: PostgresqlServer
    token: str
    """What publishers want to see of who announces layers."""

    async def bucket(self, name: str) -> S3Access:
        """Make a bucket."""
        access = replace(self.store.access, bucket=name)
        async with s3_client(access) as client:
            await create_bucket(client, name)
        return access

    async def repository_in_bucket(self, name: str) -> Mapping[str, str]:
        """Make a native repository in a bucket of its own; return the settings of a publisher of it."""
        access = await self.bucket(f"repository-{name}")
        keys = self.directory / f"keys-{name}"
        await asyncio.to_thread(self._create, access, KeyFiles(keys, NAME), self.directory / f"creator-{name}")
        return {
            **access.repository_environment,
            "PUBLISHER_REPOSITORY_KIND": RepositoryKind.NATIVE,
            "PUBLISHER_KEYS": str(keys),
        }

    def _create(self, access: S3Access, keys: KeyFiles, state: Path) -> None:
        with BucketStorage.connect(access.repository_settings(), state) as storage:
            create_repository(name=NAME, storage=storage, keys=keys, chosen=RepositoryFormat(), meta={})

    def publisher(
        self, name: str, access: S3Access, *, database: str | None, settings: Mapping[str, str]
    ) -> BenchPublisher:
        """Return a publisher that is not started yet.

        Parameters
        ----------
        name
            What has its state and its log.
        access
            The bucket of layers.
        database
            URL of a database of the server's; None for a file.
        settings
            Says where it publishes, and wins over all else.
        """
        place = self.directory / name
        (port,) = free_ports(1)
        password = str(self.postgresql.password_file)
        shared = {"PUBLISHER_DATABASE": str(database), "PUBLISHER_DATABASE_PASSWORD_FILE": password}
        environment = {
            **access.environment,
            **({} if database is None else shared),
            "PUBLISHER_REPOSITORY": NAME,
            "PUBLISHER_STATE": str(place / "state"),
            "PUBLISHER_SPOOL": str(place / "spool"),
            "PUBLISHER_EVENT_TOKEN": self.token,
            "PUBLISHER_PORT": str(port),
            **settings,
        }
        daemon = Service(f"publisher {name}", "services.publisher", log=place / "publisher.log", env=environment)
        return BenchPublisher(daemon=daemon, port=port, token=self.token, access=access, state=place / "state")


@asynccontextmanager
async def open_publisher_site(directory: Path) -> AsyncIterator[PublisherSite]:
    """Start the servers; end them at the end of the context.

    Parameters
    ----------
    directory
        Is made, and holds everything, on the disk that is measured on.
    """
    await asyncio.to_thread(directory.mkdir)
    async with AsyncExitStack() as stack:
        store = SeaweedFS(directory / "seaweedfs")
        await store.start()
        stack.push_async_callback(store.stop)
        postgresql = PostgresqlServer(directory / "postgresql.log", durable=directory)
        stack.push_async_callback(postgresql.kill)
        await postgresql.start()
        yield PublisherSite(directory=directory, store=store, postgresql=postgresql, token=secrets.token_urlsafe(24))
