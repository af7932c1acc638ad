"""Several publishers of one repository in a bucket, with one journal in PostgreSQL, and whoever starts them again."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

import aiohttp

from harness.postgresql import PostgresqlServer
from harness.processes import DaemonError, wait_until
from harness.s3 import S3Access
from services.common.archive.model import LayerArchive
from services.common.object_store.model import key_of
from services.repository.native.trust.keyring import KeyFiles
from tests.support.bucket_site import BucketSite
from tests.support.fault_proxy import Link
from tests.support.notifications import minio_event
from tests.support.publisher import REPOSITORY, PublisherProcess

__all__ = ["PublisherSite", "hanging"]

_LEASE = 5


class PublisherSite:
    """The publishers.

    Parameters
    ----------
    directory
        Where their states and logs are, and the repository's keys.
    access
        The bucket of layers, and of the repository.
    server
        Of the journal.
    database
        Its URL.
    settings
        Further environment variables of the publishers; they win.
    """

    lease = _LEASE
    """Seconds for which a publisher that hangs keeps its turn, and the repository."""

    def __init__(
        self,
        directory: Path,
        access: S3Access,
        server: PostgresqlServer,
        database: str,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.publishers: list[PublisherProcess] = []
        self.links: list[Link] = []
        self._directory = directory
        self._access = access
        self._server = server
        self._database = database
        self._settings = settings or {}
        self._repository = BucketSite(
            access=access,
            keys=KeyFiles(directory / "keys", REPOSITORY),
            state=directory / "repository",
            name=REPOSITORY,
            lease_seconds=_LEASE,
        )

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        directory: Path,
        access: S3Access,
        server: PostgresqlServer,
        database: str,
        *,
        publishers: int,
        settings: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Self]:
        """Make a repository; run publishers of it, which are started again when they end, as by a supervisor."""
        self = cls(directory, access, server, database, settings)
        await asyncio.to_thread(self._repository.create)
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for number in range(publishers):
                link = Link(server.port)
                await stack.enter_async_context(link.up())
                publisher = self._publisher(number, link)
                await stack.enter_async_context(publisher.ended())
                self.links.append(link)
                self.publishers.append(publisher)
            supervisors = [group.create_task(self._supervise(publisher)) for publisher in self.publishers]
            await self.leader()
            yield self
            for supervisor in supervisors:
                supervisor.cancel()

    def _publisher(self, number: int, link: Link) -> PublisherProcess:
        settings = {
            **self._access.repository_environment,
            "REPOSITORY_STORE_PREFIX": self._repository.prefix,
            "REPOSITORY_STORE_LEASE_SECONDS": str(_LEASE),
            "PUBLISHER_REPOSITORY_KIND": "native",
            "PUBLISHER_DIRECTORY": "",
            "PUBLISHER_KEYS": str(self._directory / "keys"),
            "PUBLISHER_DATABASE": self._database.replace(f":{self._server.port}/", f":{link.port}/"),
            "PUBLISHER_DATABASE_PASSWORD_FILE": str(self._server.password_file),
            "PUBLISHER_LEASE_SECONDS": str(_LEASE),
            **self._settings,
        }
        return PublisherProcess(self._directory / f"publisher-{number}", self._access, settings)

    async def _supervise(self, publisher: PublisherProcess) -> None:
        while True:
            try:
                await publisher.start()
            except DaemonError:
                continue  # its database is away: it says so, and ends

            async def ended() -> bool:
                return not publisher.daemon.running

            await wait_until(ended, timeout=float("inf"), what="the publisher ends")

    async def announce(self, archives: Sequence[LayerArchive], *, without: PublisherProcess | None = None) -> None:
        """Tell one publisher after the other of a layer, each again until one takes it, as object stores do."""
        told = [publisher for publisher in self.publishers if publisher is not without]
        for number, archive in enumerate(archives):
            body = minio_event(self._access.bucket, key_of(archive.digest))
            for attempt in range(number, 1 << 20):
                try:
                    async with asyncio.timeout(10):
                        if await told[attempt % len(told)].announce(body) == 204:
                            break
                except (aiohttp.ClientError, TimeoutError):
                    await asyncio.sleep(0.05)  # it is down: the next one is told

    async def leader(self, *, but: PublisherProcess | None = None) -> PublisherProcess:
        """Wait until a publisher leads, another than one; return it."""
        found: list[PublisherProcess] = []

        async def leads() -> bool:
            asked = [publisher for publisher in self.publishers if publisher is not but]
            answers = await asyncio.gather(*map(_leads, asked))
            found.extend(publisher for publisher, leads in zip(asked, answers, strict=True) if leads)
            return bool(found)

        await wait_until(leads, what="a publisher leads")
        return found[0]

    async def published(self, archives: Sequence[LayerArchive], *, least: int | None = None) -> None:
        """Wait until layers are published, all or so many of them, as any publisher says that answers."""
        wanted = {archive.digest for archive in archives}
        least = len(wanted) if least is None else least

        async def there() -> bool:
            for publisher in self.publishers:
                try:
                    async with asyncio.timeout(5):
                        shown = await publisher.get("/v1/layers?state=published&limit=1000")
                except (aiohttp.ClientError, TimeoutError):
                    continue
                if "layers" in shown:
                    return len(wanted & {layer["digest"] for layer in shown["layers"]}) >= least
            return False

        await wait_until(there, what=f"{least} of {len(wanted)} layers are published")

    def problems(self) -> Sequence[str]:
        """Check the whole repository, as `thin-repository check` does; return what is wrong."""
        return self._repository.problems()

    def missing(self, archives: Sequence[LayerArchive]) -> list[LayerArchive]:
        """Return those layers of which the newest revision does not have the file `name`."""
        contents = self._repository.read_all(archives, "name")
        return [archive for archive, content in zip(archives, contents, strict=True) if content is None]


@asynccontextmanager
async def hanging(publisher: PublisherProcess) -> AsyncIterator[None]:
    """Stop all processes of a publisher, as a machine that is suspended does."""
    os.killpg(publisher.daemon.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(publisher.daemon.pid, signal.SIGCONT)


async def _leads(publisher: PublisherProcess) -> bool:
    try:
        async with asyncio.timeout(2):
            return bool((await publisher.get("/readyz"))["leads"])
    except (aiohttp.ClientError, TimeoutError, KeyError):
        return False
