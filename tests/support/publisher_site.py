"""Publishers of one native repository, with their journal, and whoever starts them again.

Several share a repository in a bucket, and a journal in PostgreSQL; one may have both in files.
"""

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Self

import aiohttp
import psycopg

from harness.postgresql import PostgresqlServer
from harness.processes import DaemonError, wait_until
from harness.s3 import S3Access
from services.common.archive.model import LayerArchive
from services.common.digest import Digest
from services.common.layout import layer_tree
from services.common.object_store.model import key_of
from services.repository.native.check.checker import Checker
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.storage.interface import Storage
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
        Where their states and logs are, the repository's keys, and the repository unless it is in the bucket.
    access
        The bucket of layers.
    journal
        The server of the journal, and its database's URL; None for a file.
    bucket
        Whether the repository is in the bucket as well.
    settings
        Further settings of all publishers.
    """

    lease = _LEASE
    """Seconds for which a publisher that hangs keeps its turn, and the repository."""

    def __init__(
        self,
        directory: Path,
        access: S3Access,
        journal: tuple[PostgresqlServer, str] | None,
        *,
        bucket: bool,
        settings: Mapping[str, str],
    ) -> None:
        self.publishers: list[PublisherProcess] = []
        self.links: list[Link] = []
        self.access = access
        self._directory = directory
        self._journal = journal
        self._settings = settings
        self._keys = KeyFiles(directory / "keys", REPOSITORY)
        self._bucket = bucket and BucketSite(
            access=access,
            keys=self._keys,
            state=directory / "witness",
            name=REPOSITORY,
            retry_seconds=1,
            lease_seconds=_LEASE,
        )

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        directory: Path,
        access: S3Access,
        journal: tuple[PostgresqlServer, str] | None,
        *,
        publishers: int,
        bucket: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Self]:
        """Make a repository; run publishers of it, which are started again when they end, as by a supervisor."""
        self = cls(directory, access, journal, bucket=bucket, settings=settings or {})
        await asyncio.to_thread(self._create)
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for number in range(publishers):
                publisher = await self._publisher(number, stack)
                await stack.enter_async_context(publisher.ended())
                self.publishers.append(publisher)
            supervisors = [group.create_task(self._supervise(publisher)) for publisher in self.publishers]
            await self.leader()
            yield self
            for supervisor in supervisors:
                supervisor.cancel()

    def _create(self) -> None:
        with self.storage() as storage:
            create_repository(name=REPOSITORY, storage=storage, keys=self._keys, chosen=RepositoryFormat(), meta={})

    async def _publisher(self, number: int, stack: AsyncExitStack) -> PublisherProcess:
        settings = {"PUBLISHER_REPOSITORY_KIND": "native", "PUBLISHER_KEYS": str(self._directory / "keys")}
        if self._bucket:
            settings |= {
                **self.access.repository_environment,
                "PUBLISHER_DIRECTORY": "",
                "REPOSITORY_STORE_PREFIX": self._bucket.prefix,
                "REPOSITORY_STORE_LEASE_SECONDS": str(_LEASE),
            }
        else:
            settings["PUBLISHER_DIRECTORY"] = str(self._root)
        if self._journal is not None:
            server, database = self._journal
            link = Link(server.port)
            await stack.enter_async_context(link.up())
            self.links.append(link)
            settings |= {
                "PUBLISHER_DATABASE": database.replace(f":{server.port}/", f":{link.port}/"),
                "PUBLISHER_DATABASE_PASSWORD_FILE": str(server.password_file),
                "PUBLISHER_LEASE_SECONDS": str(_LEASE),
            }
        return PublisherProcess(self._directory / f"publisher-{number}", self.access, {**settings, **self._settings})

    @property
    def _root(self) -> Path:
        return self._directory / "repository"

    @contextmanager
    def storage(self) -> Iterator[Storage]:
        """Open the repository's files, as another machine does."""
        if not self._bucket:
            yield DirectoryStorage(self._root)
            return
        with self._bucket.storage() as storage:
            yield storage

    @contextmanager
    def reader(self) -> Iterator[RepositoryReader]:
        """Open a reader of the repository."""
        keys = [self._keys.public.read_bytes()]
        with self.storage() as storage, RepositoryReader(storage, name=REPOSITORY, master_keys=keys) as reader:
            yield reader

    def journaled(self) -> set[Digest]:
        """Return which layers the journal has, as its database says; no publisher need run."""
        statement = "SELECT digest FROM layers"
        if self._journal is None:
            path = self.publishers[0].state / "journal.sqlite"
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
                return {Digest(digest) for (digest,) in file.execute(statement)}
        server, database = self._journal
        with psycopg.connect(database, password=server.password.get_secret_value()) as connection:
            return {Digest(digest) for (digest,) in connection.execute(statement)}

    async def _supervise(self, publisher: PublisherProcess) -> None:
        while True:
            try:
                await publisher.start()
            except DaemonError:
                continue  # its database is away: it says so, and ends

            async def ended() -> bool:
                return not publisher.daemon.running

            await wait_until(ended, timeout=float("inf"), what="the publisher ends")

    async def announce(
        self, archives: Sequence[LayerArchive], *, without: PublisherProcess | None = None, first: int = 0
    ) -> None:
        """Tell one publisher after the other of a layer, each again until one takes it, as object stores do."""
        told = [publisher for publisher in self.publishers if publisher is not without]
        for number, archive in enumerate(archives, first):
            body = minio_event(self.access.bucket, key_of(archive.digest))
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

    def problems(self) -> list[str]:
        """Check the whole repository, as `thin-repository check` does; return what is wrong."""
        with self.storage() as storage:
            report = Checker(storage, name=REPOSITORY, master_keys=[self._keys.public.read_bytes()]).run()
        return [f"{problem.place}: {problem.what}" for problem in report.problems]

    def missing(self, archives: Sequence[LayerArchive]) -> list[LayerArchive]:
        """Return those layers of which the newest revision does not have the file `name`."""
        with self.reader() as reader:
            newest = reader.newest(reader.head())
            return [item for item in archives if newest.stat(f"/{layer_tree(item.digest)}/name".encode()) is None]


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
