"""Uploading layer archives from files: in one request, or in parts side by side when large."""

import asyncio
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from services.common.archive.model import LayerArchive
from services.common.object_store.body import FilePart, hash_part
from services.common.object_store.bucket import Bucket
from services.common.object_store.errors import ChecksumMismatchError
from services.common.object_store.model import AnnouncedLayer
from services.common.object_store.settings import ObjectStoreSettings
from services.common.object_store.writer import ObjectWriter, SentPart, part_size
from services.common.repository_name import RepositoryName
from services.common.threads import run_to_end
from services.common.together import together

__all__ = ["Uploader"]


@dataclass(frozen=True, slots=True)
class _Upload:
    """One archive on its way into the bucket."""

    archive: LayerArchive
    file: BinaryIO
    writer: ObjectWriter


class Uploader:
    """Uploads archives to a bucket.

    Parameters
    ----------
    bucket
        Where to.
    settings
        When and how archives are cut into parts.
    threads
        Where hashing is done.
    """

    def __init__(self, *, bucket: Bucket, settings: ObjectStoreSettings, threads: Executor) -> None:
        self._bucket = bucket
        self._settings = settings
        self._threads = threads

    async def upload(self, archive: LayerArchive, repository: RepositoryName) -> bool:
        """Store an archive unless it is there; see `ObjectStore.upload`."""
        layer = AnnouncedLayer(
            digest=archive.digest,
            diff_id=archive.diff_id,
            size=archive.size,
            media_type=archive.media_type,
            repository=repository,
            uncompressed_size=archive.uncompressed_size,
        )
        with archive.path.open("rb", buffering=0) as file:
            upload = _Upload(archive, file, ObjectWriter(bucket=self._bucket, layer=layer))
            self._check_size(upload)
            async with self._bucket.deadline(archive.size, doing="uploading", key=layer.key):
                if archive.size <= self._settings.multipart_threshold:
                    return await self._store_whole(upload)
                return await upload.writer.put_parts(partial(self._send_parts, upload))

    async def _store_whole(self, upload: _Upload) -> bool:
        body = await self._hash(upload, 0, upload.archive.size, lambda _: None)
        self._check_digest(upload, body.sha256)
        return await upload.writer.put(body)

    async def _send_parts(self, upload: _Upload, upload_id: str) -> list[SentPart]:
        """Send the archive in parts, hashing ahead of sending; return what the completion must list."""
        queue: asyncio.Queue[tuple[int, FilePart] | None] = asyncio.Queue(maxsize=1)
        sent: dict[int, SentPart] = {}
        size = part_size(upload.archive.size, usual=self._settings.part_size)
        transferring = size * self._settings.parallel_parts

        async def send() -> None:
            while (item := await queue.get()) is not None:
                number, part = item
                sent[number] = await upload.writer.send_part(upload_id, number, part, transferring=transferring)

        whole = hashlib.sha256()
        async with together() as group:
            for _ in range(self._settings.parallel_parts):
                group.create_task(send())
            for number, offset in enumerate(range(0, upload.archive.size, size), start=1):
                part = await self._hash(upload, offset, min(size, upload.archive.size - offset), whole.update)
                await queue.put((number, part))
            self._check_digest(upload, whole.hexdigest())
            for _ in range(self._settings.parallel_parts):
                await queue.put(None)
        return [sent[number] for number in sorted(sent)]

    async def _hash(self, upload: _Upload, offset: int, size: int, tee: Callable[[memoryview], object]) -> FilePart:
        threads = self._threads
        return await run_to_end(threads, partial(hash_part, upload.file, offset, size, threads=threads, tee=tee))

    def _check_size(self, upload: _Upload) -> None:
        size = os.fstat(upload.file.fileno()).st_size
        if size != upload.archive.size:
            raise ChecksumMismatchError(
                f"{upload.archive.path} has {size} bytes, the archive {upload.archive.digest} has "
                f"{upload.archive.size}: it was changed or cut off on local disk and has to be made again"
            )

    def _check_digest(self, upload: _Upload, found: str) -> None:
        if found != upload.archive.digest:
            raise ChecksumMismatchError(
                f"{upload.archive.path} has the sha256 {found}, the archive has {upload.archive.digest}: "
                "it was damaged on local disk and has to be made again"
            )
