"""Uploading layer archives: in one request, or in parts side by side when large."""

import asyncio
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Final

import structlog

from services.common.archive.model import LayerArchive
from services.common.object_store.body import FilePart, hash_part
from services.common.object_store.bucket import Bucket
from services.common.object_store.errors import (
    ChecksumMismatchError,
    ObjectConflictError,
    ObjectMissingError,
    ObjectStoreError,
    PreconditionFailedError,
)
from services.common.object_store.lookup import look_up
from services.common.object_store.model import key_of, metadata_of
from services.common.repository_name import RepositoryName
from services.common.threads import run_to_end, settle

__all__ = ["Uploader"]

_MOST_PARTS: Final = 10_000
"""Most parts that S3 takes for one object."""

_MIB: Final = 1 << 20

_ABORT_SECONDS: Final = 10
"""How long to try to abort a multipart upload: somebody waits for the error, or for the end of the program."""


@dataclass(frozen=True, slots=True)
class _Upload:
    """One archive on its way into the bucket."""

    archive: LayerArchive
    repository: RepositoryName
    file: BinaryIO

    @property
    def key(self) -> str:
        return key_of(self.archive.digest)

    @property
    def description(self) -> dict[str, Any]:
        return {
            "ContentType": str(self.archive.media_type),
            "Metadata": metadata_of(self.archive, self.repository),
        }


class Uploader:
    """Uploads archives to a bucket.

    Parameters
    ----------
    bucket
        Where to.
    threads
        Where hashing is done.
    """

    def __init__(self, *, bucket: Bucket, threads: Executor) -> None:
        self._bucket = bucket
        self._settings = bucket.settings
        self._threads = threads
        self._log = structlog.get_logger(__name__)

    async def upload(self, archive: LayerArchive, repository: RepositoryName) -> bool:
        """Store an archive unless it is there; see `ObjectStore.upload`."""
        key = key_of(archive.digest)
        with archive.path.open("rb", buffering=0) as file:
            upload = _Upload(archive, repository, file)
            self._check_size(upload)
            async with self._bucket.deadline(archive.size, doing="uploading", key=key):
                if archive.size <= self._settings.multipart_threshold:
                    return await self._store_whole(upload)
                return await self._store_in_parts(upload)

    async def _store_whole(self, upload: _Upload) -> bool:
        body = await self._hash(upload, 0, upload.archive.size, lambda _: None)
        self._check_digest(upload, body.sha256)
        try:
            await self._bucket.request(
                "put_object", doing="uploading", key=upload.key, body=body, IfNoneMatch="*", **upload.description
            )
        except PreconditionFailedError:
            await self._check_stored(upload)
            return False
        return True

    async def _store_in_parts(self, upload: _Upload) -> bool:
        # Not every server heeds If-None-Match when a multipart upload is completed, and parts are worth sparing.
        if await self._is_stored(upload):
            return False
        upload_id = await self._create(upload)
        try:
            parts = await self._send_parts(upload, upload_id)
            stored = await self._complete(upload, upload_id, parts)
        except BaseException:
            await self._abort_surely(upload, upload_id)
            raise
        if not stored:
            await self._abort_surely(upload, upload_id)
        await self._check_stored(upload)
        return stored

    async def _create(self, upload: _Upload) -> str:
        """Begin a multipart upload; its id is never lost, or its parts would stay in the bucket for ever."""
        creation = asyncio.ensure_future(
            self._bucket.request(
                "create_multipart_upload",
                doing="uploading",
                key=upload.key,
                ChecksumAlgorithm="SHA256",
                **upload.description,
            )
        )
        try:
            answer = await asyncio.shield(creation)
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(_ABORT_SECONDS, creation.cancel)
            await settle(creation)
            if not creation.cancelled() and creation.exception() is None:
                await self._abort_surely(upload, creation.result()["UploadId"])
            raise
        return str(answer["UploadId"])

    async def _send_parts(self, upload: _Upload, upload_id: str) -> list[dict[str, object]]:
        """Send the archive in parts, hashing ahead of sending; return what the completion must list."""
        queue: asyncio.Queue[tuple[int, FilePart] | None] = asyncio.Queue(maxsize=1)
        sent: dict[int, dict[str, object]] = {}
        size = self._part_size(upload.archive.size)

        async def send() -> None:
            while (item := await queue.get()) is not None:
                number, part = item
                answer = await self._bucket.request(
                    "upload_part",
                    doing=f"uploading part {number} of",
                    key=upload.key,
                    body=part,
                    transferring=size * self._settings.parallel_parts,
                    UploadId=upload_id,
                    PartNumber=number,
                )
                sent[number] = {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": part.checksum}

        whole = hashlib.sha256()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._settings.parallel_parts):
                    group.create_task(send())
                for number, offset in enumerate(range(0, upload.archive.size, size), start=1):
                    part = await self._hash(upload, offset, min(size, upload.archive.size - offset), whole.update)
                    await queue.put((number, part))
                self._check_digest(upload, whole.hexdigest())
                for _ in range(self._settings.parallel_parts):
                    await queue.put(None)
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [sent[number] for number in sorted(sent)]

    async def _complete(self, upload: _Upload, upload_id: str, parts: Sequence[dict[str, object]]) -> bool:
        try:
            await self._bucket.request(
                "complete_multipart_upload",
                doing="completing the upload of",
                key=upload.key,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
                IfNoneMatch="*",
            )
        except PreconditionFailedError:
            return False
        except ObjectMissingError:
            # The answer to a completion may have been lost; repeated, it finds the upload gone and the object there.
            if not await self._is_stored(upload):
                raise
        return True

    async def _abort_surely(self, upload: _Upload, upload_id: str) -> None:
        """Abort a multipart upload, also while this task is being cancelled; a failure is logged, not raised."""
        abort = asyncio.ensure_future(self._abort(upload, upload_id))
        try:
            await asyncio.shield(abort)
        except asyncio.CancelledError:
            await settle(abort)
            raise

    async def _abort(self, upload: _Upload, upload_id: str) -> None:
        try:
            async with asyncio.timeout(_ABORT_SECONDS):
                await self._bucket.request(
                    "abort_multipart_upload", doing="aborting the upload of", key=upload.key, UploadId=upload_id
                )
        except ObjectMissingError:
            return  # aborted or completed already
        except (ObjectStoreError, TimeoutError) as error:
            # What made the upload fail is what the caller should hear of.
            self._log.warning("multipart upload left in the bucket", upload_id=upload_id, reason=str(error))

    async def _is_stored(self, upload: _Upload) -> bool:
        stored = await look_up(self._bucket, upload.archive.digest)
        if stored is None:
            return False
        wanted = {"size": upload.archive.size, "diff ID": upload.archive.diff_id, "repository": upload.repository}
        found = {"size": stored.size, "diff ID": stored.diff_id, "repository": stored.repository}
        differences = [
            f"its {name} is {found[name] or 'not given'}, not {value}"
            for name, value in wanted.items()
            if found[name] != value
        ]
        if differences:
            raise ObjectConflictError(
                f"{self._bucket.place(upload.key)} is there already, and {'; '.join(differences)}: "
                "find out who stored it, and remove it if nobody needs it"
            )
        return True

    async def _check_stored(self, upload: _Upload) -> None:
        if not await self._is_stored(upload):
            raise ObjectMissingError(f"{self._bucket.place(upload.key)} vanished after it had been stored")

    async def _hash(self, upload: _Upload, offset: int, size: int, tee: Callable[[memoryview], object]) -> FilePart:
        return await run_to_end(self._threads, partial(hash_part, upload.file, offset, size, tee=tee))

    def _part_size(self, size: int) -> int:
        least = -(-size // _MOST_PARTS)
        return max(self._settings.part_size, -(-least // _MIB) * _MIB)

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
