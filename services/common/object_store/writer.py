"""Making one object: in one request or in parts, never over another one, and never half."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from services.common.object_store.body import Body, checksum
from services.common.object_store.bucket import Bucket
from services.common.object_store.errors import (
    AccessDeniedError,
    ObjectConflictError,
    ObjectMissingError,
    ObjectStoreError,
    PreconditionFailedError,
)
from services.common.object_store.lookup import look_up
from services.common.object_store.model import AnnouncedLayer
from services.common.threads import settle

__all__ = ["ObjectWriter", "SentPart", "part_size"]

SentPart = dict[str, object]
"""What the completion of a multipart upload lists of a part."""

_MOST_PARTS: Final = 10_000
"""Most parts that S3 takes for one object."""

_MIB: Final = 1 << 20

_ABORT_SECONDS: Final = 10
"""How long to try to abort a multipart upload: somebody waits for the error, or for the end of the program."""


def part_size(size: int, *, usual: int) -> int:
    """Size of the parts of an object of `size` bytes: the usual one, or what S3's number of parts makes necessary."""
    least = -(-size // _MOST_PARTS)
    return max(usual, -(-least // _MIB) * _MIB)


class ObjectWriter:
    """Writes the object of one layer.

    Parameters
    ----------
    bucket
        Where to.
    layer
        What the object will be.
    """

    def __init__(self, *, bucket: Bucket, layer: AnnouncedLayer) -> None:
        self._bucket = bucket
        self._layer = layer
        self._log = structlog.get_logger(__name__)

    async def put(self, body: Body) -> bool:
        """Store the object in one request; return False if it was there already."""
        try:
            await self._bucket.request(
                "put_object",
                doing="uploading",
                key=self._layer.key,
                body=body,
                IfNoneMatch="*",
                **self._layer.description,
            )
        except PreconditionFailedError:
            await self._check_stored()
            return False
        return True

    async def put_parts(self, send: Callable[[str], Awaitable[Sequence[SentPart]]]) -> bool:
        """Store the object in parts; return False if it was there already.

        Parameters
        ----------
        send
            Sends all parts of the upload of the given id, by `send_part`. If it fails no object appears.
        """
        # Not every server heeds If-None-Match when a multipart upload is completed, and parts are worth sparing.
        if await self.is_stored():
            return False
        upload_id = await self._create()
        try:
            stored = await self._complete(upload_id, await send(upload_id))
        except BaseException:
            await self._abort_surely(upload_id)
            raise
        if not stored:
            await self._abort_surely(upload_id)
        await self._check_stored()
        return stored

    async def send_part(self, upload_id: str, number: int, body: Body, *, transferring: int) -> SentPart:
        """Send one part.

        Parameters
        ----------
        upload_id
            The upload.
        number
            Number of the part, from 1.
        body
            The part.
        transferring
            Bytes that may be on their way at the same time.
        """
        answer = await self._bucket.request(
            "upload_part",
            doing=f"uploading part {number} of",
            key=self._layer.key,
            body=body,
            transferring=transferring,
            UploadId=upload_id,
            PartNumber=number,
        )
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum(body)}

    async def is_stored(self) -> bool:
        """Whether the object is there, as far as the user is told.

        Raises
        ------
        ObjectConflictError
            There is one whose size, diff ID or repository is another.
        """
        try:
            return await self._find()
        except AccessDeniedError:
            # So S3 answers about what is not there to somebody who may not list the bucket, as uploaders may not. If
            # the user may do nothing at all, the next request shows it.
            return False

    async def _find(self) -> bool:
        stored = await look_up(self._bucket, self._layer.digest)
        if stored is None:
            return False
        wanted = {"size": self._layer.size, "diff ID": self._layer.diff_id, "repository": self._layer.repository}
        found = {"size": stored.size, "diff ID": stored.diff_id, "repository": stored.repository}
        differences = [
            f"its {name} is {found[name] or 'not given'}, not {value}"
            for name, value in wanted.items()
            if found[name] != value
        ]
        if differences:
            raise ObjectConflictError(
                f"{self._bucket.place(self._layer.key)} is there already, and {'; '.join(differences)}: "
                "find out who stored it, and remove it if nobody needs it"
            )
        return True

    async def _create(self) -> str:
        """Begin a multipart upload; its id is never lost, or its parts would stay in the bucket for ever."""
        creation = asyncio.ensure_future(
            self._bucket.request(
                "create_multipart_upload",
                doing="uploading",
                key=self._layer.key,
                ChecksumAlgorithm="SHA256",
                **self._layer.description,
            )
        )
        try:
            answer = await asyncio.shield(creation)
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(_ABORT_SECONDS, creation.cancel)
            await settle(creation)
            if not creation.cancelled() and creation.exception() is None:
                await self._abort_surely(creation.result()["UploadId"])
            raise
        return str(answer["UploadId"])

    async def _complete(self, upload_id: str, parts: Sequence[SentPart]) -> bool:
        try:
            await self._bucket.request(
                "complete_multipart_upload",
                doing="completing the upload of",
                key=self._layer.key,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
                IfNoneMatch="*",
            )
        except PreconditionFailedError:
            return False
        except ObjectMissingError:
            # The answer to a completion may have been lost; repeated, it finds the upload gone and the object there.
            if not await self.is_stored():
                raise
        return True

    async def _abort_surely(self, upload_id: str) -> None:
        """Abort a multipart upload, also while this task is being cancelled; a failure is logged, not raised."""
        abort = asyncio.ensure_future(self._abort(upload_id))
        try:
            await asyncio.shield(abort)
        except asyncio.CancelledError:
            await settle(abort)
            raise

    async def _abort(self, upload_id: str) -> None:
        try:
            async with asyncio.timeout(_ABORT_SECONDS):
                await self._bucket.request(
                    "abort_multipart_upload", doing="aborting the upload of", key=self._layer.key, UploadId=upload_id
                )
        except ObjectMissingError:
            return  # aborted or completed already
        except (ObjectStoreError, TimeoutError) as error:
            # What made the upload fail is what the caller should hear of.
            self._log.warning("multipart upload left in the bucket", upload_id=upload_id, reason=str(error))

    async def _check_stored(self) -> None:
        if not await self._find():
            raise ObjectMissingError(f"{self._bucket.place(self._layer.key)} vanished after it had been stored")
