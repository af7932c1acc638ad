"""Small layers, as many as one likes, each with files that no other has."""

import asyncio
import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.s3 import S3Access
from services.common.archive.model import LayerArchive, MediaType
from services.common.digest import Digest
from services.common.object_store.store import ObjectStore
from services.common.repository_name import RepositoryName
from services.common.sidecar import LayerSidecar

__all__ = ["SmallLayer", "small_layer", "upload_all"]

_FILES: Final = 3
_SIDE_BY_SIDE: Final = 16
"""Uploads at the same time."""


@dataclass(frozen=True, kw_only=True)
class SmallLayer:
    """A layer that can be uploaded."""

    archive: LayerArchive
    sidecar: bytes
    """What lies beside it in a repository."""

    @property
    def digest(self) -> Digest:
        """Its digest."""
        return self.archive.digest


def small_layer(directory: Path, number: int) -> SmallLayer:
    """Write a small layer: a directory and three files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        entry = tarfile.TarInfo("etc")
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(entry)
        files = [f"{file} of {number}\n".encode() for file in range(_FILES)]
        for file, content in enumerate(files):
            entry = tarfile.TarInfo(f"etc/{file}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    tarred = stream.getvalue()
    compressed = gzip.compress(tarred, mtime=0)
    archive = LayerArchive(
        path=directory / f"layer-{number}",
        digest=Digest(hashlib.sha256(compressed).hexdigest()),
        diff_id=Digest(hashlib.sha256(tarred).hexdigest()),
        size=len(compressed),
        uncompressed_size=len(tarred),
        media_type=MediaType.TAR_GZIP,
    )
    archive.path.write_bytes(compressed)
    sidecar = LayerSidecar(
        digest=archive.digest,
        diff_id=archive.diff_id,
        archive_size=archive.size,
        uncompressed_size=archive.uncompressed_size,
        tree_size=sum(map(len, files)),
        entries=1 + _FILES,
    )
    return SmallLayer(archive=archive, sidecar=sidecar.encode())


async def upload_all(access: S3Access, archives: Iterable[LayerArchive], *, repository: RepositoryName) -> None:
    """Upload layers as drivers do, a few at the same time."""
    waiting = iter(archives)
    async with ObjectStore(settings=access.settings) as store, asyncio.TaskGroup() as group:

        async def some() -> None:
            for archive in waiting:
                await store.upload(archive, repository=repository)

        for _ in range(_SIDE_BY_SIDE):
            group.create_task(some())
