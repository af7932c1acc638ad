"""Layers for native repositories, the repositories, and how long it takes to publish."""

import asyncio
import hashlib
import io
import os
import tarfile
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from services.common.archive.limits import ArchiveLimits
from services.common.digest import Digest
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.repository.interface import PreparedLayer
from services.repository.layer import VerifiedLayer
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.repository import NativeRepository
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.trust.keyring import KeyFiles

__all__ = ["add_file", "open_repository", "publish_timed", "publish_tiny", "verified_layer"]


def add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to an archive."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def verified_layer(archive: Path) -> VerifiedLayer:
    """Return a layer that is an archive without compression."""
    with archive.open("rb") as file:
        digest = Digest(hashlib.file_digest(file, "sha256").hexdigest())
    return VerifiedLayer(
        path=archive,
        digest=digest,
        diff_id=digest,
        size=archive.stat().st_size,
        uncompressed_size=None,
        limits=ArchiveLimits(),
    )


async def publish_timed(repository: NativeRepository, layers: Sequence[VerifiedLayer]) -> float:
    """Publish layers as one revision, as the publisher does, four being prepared at a time; return the seconds."""
    turn = asyncio.Semaphore(4)

    async def prepare(layer: VerifiedLayer) -> PreparedLayer:
        async with turn:
            return await repository.prepare(layer)

    started = time.perf_counter()
    prepared = await asyncio.gather(*map(prepare, layers))
    async with repository.transaction("bench") as transaction:
        for layer in prepared:
            await transaction.add(layer)
        await transaction.publish()
    seconds = time.perf_counter() - started
    for layer in prepared:
        await repository.discard(layer)
    return seconds


@asynccontextmanager
async def open_repository(place: Path, name: RepositoryName, keys: KeyFiles) -> AsyncIterator[NativeRepository]:
    """Make a repository and open it, its processes started.

    Parameters
    ----------
    place
        What does not exist yet, and gets everything.
    name
        Of the repository.
    keys
        Its keys, made where they do not exist.
    """
    storage = DirectoryStorage(place / "repository")
    create_repository(name=name, storage=storage, keys=keys, chosen=RepositoryFormat(), meta={})
    with ThreadPoolExecutor(6) as threads:
        repository = NativeRepository(
            name=name,
            storage=storage,
            keys=keys,
            state=place / "state",
            layout=LayerLayout.FLAT,
            threads=threads,
        )
        async with repository:
            await repository.recover(())
            archives = place / "tiny"
            await asyncio.to_thread(archives.mkdir)
            await publish_tiny(repository, [archives / str(number) for number in range(2 * (os.cpu_count() or 1))])
            yield repository


async def publish_tiny(repository: NativeRepository, archives: Sequence[Path]) -> float:
    """Write archives of three small files, and publish them as one revision; return the seconds of the latter."""
    await asyncio.to_thread(_write_tiny, archives)
    return await publish_timed(repository, [verified_layer(archive) for archive in archives])


def _write_tiny(archives: Sequence[Path]) -> None:
    for archive in archives:
        with tarfile.open(archive, "w") as tar:
            for number in range(3):
                add_file(tar, f"etc/{number}", f"{archive} {number}\n".encode())
