"""Asking the bucket what it holds."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any

import structlog

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.object_store.bucket import Bucket
from services.common.object_store.errors import AccessDeniedError, ObjectConflictError, ObjectMissingError
from services.common.object_store.model import KEY_PREFIX, StoredLayer, digest_of, key_of

__all__ = ["check_bucket", "list_layers", "look_up", "read_description"]

_log = structlog.get_logger(__name__)


async def check_bucket(bucket: Bucket) -> None:
    """Raise unless the bucket is there and may be used; see `ObjectStore.check`."""
    await bucket.request("head_bucket", doing="looking for")


async def look_up(bucket: Bucket, digest: Digest) -> StoredLayer | None:
    """Describe a layer's object; see `ObjectStore.head`."""
    key = key_of(digest)
    try:
        answer = await bucket.request("head_object", doing="looking for", key=key)
    except ObjectMissingError:
        # The answer to a HEAD does not tell whether the object or the whole bucket is missing. Who may not list the
        # bucket is not told either.
        with suppress(AccessDeniedError):
            await check_bucket(bucket)
        return None
    return read_description(bucket, digest, answer, size=answer["ContentLength"])


def read_description(bucket: Bucket, digest: Digest, answer: Mapping[str, Any], *, size: int) -> StoredLayer:
    """Read the description in an answer about an object.

    Raises
    ------
    ObjectConflictError
        Its metadata are not those of a layer.
    """
    try:
        return StoredLayer.from_answer(digest, answer, size=size)
    except InvalidValueError as error:
        place = bucket.place(key_of(digest))
        raise ObjectConflictError(f"{place}: its metadata are not a layer's: {error}: remove or repair it") from None


async def list_layers(bucket: Bucket) -> AsyncGenerator[StoredLayer, None]:
    """Iterate over the bucket's layers; see `ObjectStore.list_layers`."""
    page: dict[str, Any] = {}
    while True:
        answer = await bucket.request("list_objects_v2", doing="listing", Prefix=KEY_PREFIX, **page)
        for item in answer.get("Contents", ()):
            try:
                digest = digest_of(item["Key"])
            except InvalidValueError as error:
                _log.warning("object is no layer", key=item["Key"], reason=str(error))
                continue
            yield StoredLayer(digest=digest, size=item["Size"], last_modified=item["LastModified"])
        if not answer.get("IsTruncated"):
            return
        page = {"ContinuationToken": answer["NextContinuationToken"]}
