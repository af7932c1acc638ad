"""Uploads in parts that nobody will complete: who sent them was killed, and their parts take space for ever."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from services.common.errors import InvalidValueError
from services.common.object_store.bucket import Bucket
from services.common.object_store.errors import ObjectMissingError
from services.common.object_store.model import KEY_PREFIX, digest_of

__all__ = ["abort_abandoned_uploads"]

_log = structlog.get_logger(__name__)


async def abort_abandoned_uploads(bucket: Bucket, age: timedelta) -> int:
    """Abort uploads that were begun long ago; see `ObjectStore.abort_abandoned_uploads`."""
    last = datetime.now(UTC) - age
    aborted = 0
    async with aclosing(_uploads(bucket)) as uploads:
        async for upload in uploads:
            if upload["Initiated"] <= last:
                aborted += await _abort(bucket, upload["Key"], upload["UploadId"])
    return aborted


async def _uploads(bucket: Bucket) -> AsyncGenerator[dict[str, Any], None]:
    """Iterate over the uploads of layers that are neither completed nor aborted."""
    page: dict[str, Any] = {}
    while True:
        answer = await bucket.request("list_multipart_uploads", doing="listing uploads", Prefix=KEY_PREFIX, **page)
        for upload in answer.get("Uploads", ()):
            try:
                digest_of(upload["Key"])
            except InvalidValueError:
                continue  # somebody else's
            yield upload
        following = {"KeyMarker": answer.get("NextKeyMarker"), "UploadIdMarker": answer.get("NextUploadIdMarker")}
        if not answer.get("IsTruncated") or not any(following.values()) or following == page:
            return
        page = {name: marker for name, marker in following.items() if marker}


async def _abort(bucket: Bucket, key: str, upload_id: str) -> bool:
    try:
        await bucket.request("abort_multipart_upload", doing="aborting the upload of", key=key, UploadId=upload_id)
    except ObjectMissingError:
        return False  # another publisher was quicker
    _log.info("abandoned upload aborted", key=key, upload_id=upload_id)
    return True
