"""Layers for native repositories, and how long it takes to publish them."""

import asyncio
import hashlib
import io
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

from services.common.archive.limits import ArchiveLimits
from services.common.digest import Digest
from services.repository.interface import PreparedLayer
from services.repository.layer import VerifiedLayer
from services.repository.native.repository import NativeRepository

__all__ = ["add_file", "publish_timed", "verified_layer"]


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
