"""Publishing many small files into a native repository in a bucket, beside one in a directory.

A bucket takes each object by a request of its own. The server is on the same machine, and most of the time is its own.
"""

import asyncio
import itertools
import random
import tarfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from harness.bench.measure import Row, compare
from harness.bench.publishing import add_file, publish_timed, verified_layer
from harness.seaweedfs import SeaweedFS
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.repository import NativeRepository
from services.repository.native.storage.bucket import BucketStorage
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.storage.interface import Storage
from services.repository.native.trust.keyring import KeyFiles

__all__ = ["bucket"]

_NAME: Final = RepositoryName("bench.example.org")
_FILES: Final = 62_000
_RUNS: Final = 1
"""Figures that count: each takes a minute."""


async def bucket(directory: Path) -> list[Row]:
    """Measure small files, from the archive to a new head.

    Parameters
    ----------
    directory
        Is made, and holds everything.
    """
    directory.mkdir()
    archive = directory / "small.tar"
    await asyncio.to_thread(_make, archive)
    numbers = itertools.count()
    server = SeaweedFS(directory / "server")
    await server.start()

    async def into_directory() -> float:
        place = directory / str(next(numbers))
        return await _publish(archive, _in_directory(place), place)

    async def into_bucket() -> float:
        place = directory / str(next(numbers))
        return await _publish(archive, _in_bucket(server, place), place)

    try:
        subjects = {"directory": into_directory, "bucket": into_bucket}
        return [await compare(f"native, {_FILES} small files", subjects, runs=_RUNS)]
    finally:
        await server.stop()


def _make(archive: Path) -> None:
    chance = random.Random(3)  # noqa: S311 - the same archive every time
    with tarfile.open(archive, "w") as tar:
        for number in range(_FILES):
            lines = (f"{chance.random()} of {number}, line {line}\n" for line in range(chance.randint(1, 100)))
            add_file(tar, f"{number // 100}/{number}", "".join(lines).encode())


async def _publish(archive: Path, connected: AbstractContextManager[Storage], place: Path) -> float:
    """Publish an archive into a new repository; return the seconds."""
    with connected as storage:
        async with _opened(storage, place) as repository:
            return await publish_timed(repository, [verified_layer(archive)])


@contextmanager
def _in_directory(place: Path) -> Iterator[Storage]:
    yield DirectoryStorage(place / "repository")


@contextmanager
def _in_bucket(server: SeaweedFS, place: Path) -> Iterator[Storage]:
    settings = server.access.repository_settings(prefix=f"{place.name}/")
    with BucketStorage.connect(settings, place / "state") as storage:
        yield storage


@asynccontextmanager
async def _opened(storage: Storage, place: Path) -> AsyncIterator[NativeRepository]:
    keys = KeyFiles(place / "keys", _NAME)
    await asyncio.to_thread(
        create_repository, name=_NAME, storage=storage, keys=keys, chosen=RepositoryFormat(), meta={}
    )
    with ThreadPoolExecutor(6) as threads:
        repository = NativeRepository(
            name=_NAME, storage=storage, keys=keys, state=place / "state", layout=LayerLayout.FLAT, threads=threads
        )
        async with repository:
            await repository.recover(())
            yield repository
