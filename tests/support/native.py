"""A native repository of a test's own: written by the publisher's code, read and judged by the reader's."""

import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.common.archive.model import LayerArchive, MediaType
from services.common.digest import Digest
from services.common.layout import LayerLayout, layer_tree
from services.common.repository_name import RepositoryName
from services.repository.native.access import RepositoryAccess
from services.repository.native.check.checker import Checker
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.reader.entries import Entry
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.reader.revision import Revision
from services.repository.native.repository import NativeRepository
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.writer.kept_catalogs import KeptCatalogs
from services.repository.native.writer.open_catalogs import OpenCatalogs
from tests.support.publisher import verified
from tests.support.tars import archive, member

__all__ = ["NATIVE_NAME", "NativeSite", "layer_entries", "layers_of_one_shelf", "publish", "tar_archive"]

NATIVE_NAME = RepositoryName("native.example.org")


@dataclass(frozen=True, kw_only=True)
class NativeSite:
    """Where a native repository, its keys and its publisher's state are."""

    root: Path
    state: Path
    keys: KeyFiles
    layout: LayerLayout = LayerLayout.FLAT
    clock: Callable[[], float] = time.time

    @property
    def storage(self) -> DirectoryStorage:
        """The repository's files."""
        return DirectoryStorage(self.root)

    def create(self, **chosen: Any) -> None:  # noqa: ANN401 - the fields of a RepositoryFormat
        """Make the repository."""
        create_repository(
            name=NATIVE_NAME, storage=self.storage, keys=self.keys, chosen=RepositoryFormat(**chosen), meta={}
        )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[NativeRepository]:
        """Open it as the publisher does."""
        with ThreadPoolExecutor(4) as threads:
            repository = NativeRepository(
                name=NATIVE_NAME,
                storage=self.storage,
                keys=self.keys,
                state=self.state,
                layout=self.layout,
                threads=threads,
                workers=1,
                clock=self.clock,
            )
            async with repository:
                await repository.recover(())
                yield repository

    @contextmanager
    def reader(self) -> Iterator[RepositoryReader]:
        """Open a reader."""
        with RepositoryReader(self.storage, name=NATIVE_NAME, master_keys=[self.keys.public.read_bytes()]) as reader:
            yield reader

    @contextmanager
    def newest(self) -> Iterator[Revision]:
        """Open the newest revision."""
        with self.reader() as reader:
            yield reader.newest(reader.head())

    @contextmanager
    def changing(self) -> Iterator[OpenCatalogs]:
        """Change the catalogs of the newest revision, and publish what has been changed."""
        access = RepositoryAccess.open(name=NATIVE_NAME, storage=self.storage, keys=self.keys)
        with (
            access.changing() as previous,
            closing(KeptCatalogs(storage=self.storage, compressor=access.compressor)) as kept,
        ):
            catalogs = OpenCatalogs(storage=self.storage, compressor=access.compressor, kept=kept, root=previous.root)
            try:
                yield catalogs
                revision, published = previous.revision + 1, previous.published + 1
                root = catalogs.store(previous=previous, revision=revision, published=published)
                access.head.publish(root, previous=previous)
            finally:
                catalogs.close(unharmed=False)

    def revision(self) -> int:
        """Return the number of the newest revision."""
        with self.reader() as reader:
            return reader.head().manifest.revision

    def problems(self) -> list[str]:
        """Check everything; return what is wrong."""
        checker = Checker(self.storage, name=NATIVE_NAME, master_keys=[self.keys.public.read_bytes()])
        return [f"{problem.place}: {problem.what}" for problem in checker.run().problems]


async def publish(repository: NativeRepository, *archives: LayerArchive, token: str = "token") -> int:  # noqa: S107
    """Publish layers as one batch; return the revision."""
    prepared = [await repository.prepare(verified(archive)) for archive in archives]
    async with repository.transaction(token) as transaction:
        for layer in prepared:
            await transaction.add(layer)
        revision = await transaction.publish()
    for layer in prepared:
        await repository.discard(layer)
    return revision


def layer_entries(revision: Revision, digest: Digest) -> dict[bytes, Entry]:
    """Return the entries of a layer's tree by their paths in it, the root's being empty."""
    top = b"/" + layer_tree(digest).encode()
    return {entry.path[len(top) + 1 :]: entry for entry in revision.walk(top)}


def tar_archive(directory: Path, content: bytes) -> LayerArchive:
    """Write a layer archive that is not compressed."""
    digest = Digest(hashlib.sha256(content).hexdigest())
    path = directory / f"{digest}.tar"
    path.write_bytes(content)
    return LayerArchive(
        path=path,
        digest=digest,
        diff_id=digest,
        size=len(content),
        uncompressed_size=len(content),
        media_type=MediaType.TAR,
    )


def layers_of_one_shelf(count: int) -> list[bytes]:
    """Make layers whose homes are in the same directory, so that each changes the same catalog."""
    shelves: dict[str, list[bytes]] = {}
    for number in itertools.count():
        made = archive(member(b"file", b"%d" % number))
        shelf = shelves.setdefault(hashlib.sha256(made).hexdigest()[:2], [])
        shelf.append(made)
        if len(shelf) == count:
            return shelf
    raise AssertionError
