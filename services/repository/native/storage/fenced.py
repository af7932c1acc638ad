"""What is done to a bucket under the lease: requests that the server refuses once somebody else may have it.

See `services.repository.native.storage.lease`. The head besides changes on condition that it is the one that was found.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.common.object_store.body import MemoryPart
from services.common.object_store.bucket import Bucket
from services.common.object_store.errors import (
    AccessDeniedError,
    ObjectMissingError,
    PreconditionFailedError,
    StoreUnavailableError,
)
from services.repository.native.errors import OvertakenError, StorageError
from services.repository.native.storage.conditions import only_if
from services.repository.native.storage.lease import Lease

__all__ = ["FencedRequests"]

_HEADERS: Final[Mapping[str, Any]] = {"CacheControl": "max-age=61", "ContentType": "application/x-cvmfs"}
"""Of what changes: as the stock tools set them up for Apache."""
_DELETED_AT_ONCE: Final = 1000
"""Most keys that one request deletes."""


class FencedRequests:
    """Requests about the part of a bucket that holds a repository.

    Parameters
    ----------
    bucket
        The bucket.
    prefix
        What the keys begin with.
    lease
        What they are made under.
    """

    def __init__(self, *, bucket: Bucket, prefix: str, lease: Lease) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._lease = lease

    async def look(self, name: str) -> tuple[bytes, str]:
        """Return a small file and its version; no lease is needed.

        Raises
        ------
        ObjectMissingError
            It is not there.
        ObjectStoreError
            The bucket failed.
        """
        key = self._prefix + name
        async for attempt in self._bucket.attempts():
            with attempt:
                answer = await self._bucket.request_once("get_object", doing="reading", key=key)
                async with answer["Body"] as stream:
                    with self._bucket.failures(doing="reading", key=key):
                        return await stream.read(), str(answer["ETag"])
        raise AssertionError("the last attempt returns or raises")

    async def replace(self, name: str, content: bytes) -> None:
        """Put a file; also without the lease, where it does not matter who is the last to do so.

        Raises
        ------
        OvertakenError
            The lease was entered, and is over.
        ObjectStoreError
            The bucket failed.
        """
        if self._lease.is_held:
            await self._fenced("put_object", **self._replacing(name, content))
        else:
            await self._bucket.request("put_object", **self._replacing(name, content))

    async def exchange(self, name: str, content: bytes, former: str | None) -> str:
        """Put a file in the place of a version of it, which is None where it is not there; return its new version.

        Raises
        ------
        OvertakenError
            It is another version, or the lease is over.
        ObjectStoreError
            The bucket failed.
        """
        try:
            answer = await self._fenced("put_object", **self._replacing(name, content), **only_if(former))
            return str(answer["ETag"])
        except PreconditionFailedError as error:
            try:
                present, version = await self.look(name)
            except ObjectMissingError:
                present, version = b"", ""
            if present == content:
                return version  # it was put, and the answer had got lost
            raise OvertakenError(
                f"{self._bucket.place(self._prefix + name)} has been changed by another publisher meanwhile"
            ) from error

    async def copy(self, name: str, place: str) -> None:
        """Copy a file to another place; errors as `replace`, but the lease must have been entered."""
        source = {"Bucket": self._bucket.settings.bucket, "Key": self._prefix + name}
        await self._fenced(
            "copy_object",
            doing=f"copying {name} to",
            key=self._prefix + place,
            CopySource=source,
            MetadataDirective="REPLACE",
            **_HEADERS,
        )

    async def delete(self, paths: Sequence[str]) -> None:
        """Delete objects; errors as `copy`, and StorageError where the server has kept one."""
        for start in range(0, len(paths), _DELETED_AT_ONCE):
            keys = [{"Key": self._prefix + path} for path in paths[start : start + _DELETED_AT_ONCE]]
            answer = await self._fenced(
                "delete_objects", doing="deleting objects of", Delete={"Objects": keys, "Quiet": True}
            )
            if failures := answer.get("Errors"):
                raise StorageError(
                    f"{self._bucket.place(failures[0]['Key'])} cannot be deleted: {failures[0].get('Message')}"
                )

    def _replacing(self, name: str, content: bytes) -> dict[str, Any]:
        body = MemoryPart(memoryview(content), hashlib.sha256(content).hexdigest())
        return {"doing": "replacing", "key": self._prefix + name, "body": body, **_HEADERS}

    async def _fenced(self, operation: str, *, doing: str, **parameters: Any) -> Mapping[str, Any]:  # noqa: ANN401
        async for attempt in self._bucket.attempts():
            with attempt:
                try:
                    return await self._bucket.request_once(
                        operation, doing=doing, term=self._lease.term(), **parameters
                    )
                except AccessDeniedError:
                    self._lease.term()  # what is over is refused like this, and then that is what is to be said
                    raise
                except (StoreUnavailableError, asyncio.CancelledError):
                    self._lease.keep()  # nobody else may have it while this can still arrive
                    raise
        raise AssertionError("the last attempt returns or raises")
