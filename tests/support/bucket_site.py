"""A native repository in a bucket, and one publisher of it."""

from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.s3 import S3Access
from services.common.archive.model import LayerArchive
from services.common.layout import LayerLayout, layer_tree
from services.common.repository_name import RepositoryName
from services.repository.native.check.checker import Checker
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.records import MANIFEST, REFLOG, WAITING_REFLOG
from services.repository.native.repository import NativeRepository
from services.repository.native.storage.bucket import BucketStorage
from services.repository.native.trust.keyring import KeyFiles
from tests.support.native import NATIVE_NAME
from tests.support.stock_rules import faults_of_reflog

__all__ = ["BucketSite"]


@dataclass(frozen=True, kw_only=True)
class BucketSite:
    """A repository in a bucket, and its publisher's state: another state is another machine."""

    access: S3Access
    keys: KeyFiles
    state: Path
    name: RepositoryName = NATIVE_NAME
    prefix: str = "cvmfs/"
    retry_seconds: float = 20
    lease_seconds: int = 20

    def storage(self) -> AbstractContextManager[BucketStorage]:
        """Connect to the bucket."""
        settings = self.access.repository_settings(
            prefix=self.prefix, retry_seconds=self.retry_seconds, lease_seconds=self.lease_seconds
        )
        return BucketStorage.connect(settings, self.state)

    def create(self) -> None:
        """Make the repository."""
        with self.storage() as storage:
            create_repository(name=self.name, storage=storage, keys=self.keys, chosen=RepositoryFormat(), meta={})

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[NativeRepository]:
        """Open it as the publisher does."""
        with ThreadPoolExecutor(4) as threads, self.storage() as storage:
            repository = NativeRepository(
                name=self.name,
                storage=storage,
                keys=self.keys,
                state=self.state,
                layout=LayerLayout.FLAT,
                threads=threads,
                workers=1,
            )
            async with repository:
                await repository.recover(())
                yield repository

    def problems(self) -> list[str]:
        """Check everything; return what is wrong."""
        with self.storage() as storage:
            checker = Checker(storage, name=self.name, master_keys=[self.keys.public.read_bytes()])
            return [f"{problem.place}: {problem.what}" for problem in checker.run().problems]

    def read(self, layer: LayerArchive, name: str) -> bytes | None:
        """Return a file of a layer of the newest revision."""
        (content,) = self.read_all([layer], name)
        return content

    def read_all(self, layers: Sequence[LayerArchive], name: str) -> list[bytes | None]:
        """Return a file of each of some layers of the newest revision."""
        with self._reader() as reader:
            revision = reader.newest(reader.head())
            entries = [revision.stat(f"/{layer_tree(layer.digest)}/{name}".encode()) for layer in layers]
            return [None if entry is None else b"".join(revision.content(entry)) for entry in entries]

    def revision(self) -> int:
        """Return the number of the newest revision."""
        with self._reader() as reader:
            return reader.head().manifest.revision

    @contextmanager
    def _reader(self) -> Iterator[RepositoryReader]:
        with (
            self.storage() as storage,
            RepositoryReader(storage, name=self.name, master_keys=[self.keys.public.read_bytes()]) as reader,
        ):
            yield reader

    def faults_of_reflog(self) -> list[str]:
        """Say what the stock checker would find fault with in the reference log."""
        with self.storage() as storage:
            return faults_of_reflog(lambda name: None if storage.size(name) is None else storage.read(name))

    def root_files(self) -> set[str]:
        """Return which files of the head are there."""
        names = (MANIFEST, REFLOG, WAITING_REFLOG)
        with self.storage() as storage:
            return {name for name in names if storage.size(name) is not None}

    def objects(self) -> set[str]:
        """Return the paths of all objects."""
        with self.storage() as storage:
            return {found.path for found in storage.list("data/")}
