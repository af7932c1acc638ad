"""Who may write to a bucket: one machine at a time.

The locks of `RepositoryLocks` hold between the processes of a machine. Another machine is kept out by a lease: an
object that names its holder and the time until which it holds, changed by conditional requests only. All processes with
the same state directory are one holder. A holder that dies is waited for until its time is over.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog

from services.common.object_store.body import MemoryPart
from services.common.object_store.bucket import Bucket
from services.common.object_store.errors import ObjectMissingError, ObjectStoreError, PreconditionFailedError
from services.repository.native.errors import RepositoryBusyError, StorageError

__all__ = ["LEASE_FILE", "Lease"]

_log = structlog.get_logger(__name__)

LEASE_FILE: Final = ".cvmfs_thin_lease.json"
"""Relative to the root of the repository."""
_SECONDS: Final = 60.0
"""For how long it is taken at a time."""
_RENEWAL: Final = 15.0
"""Seconds between two renewals."""
_SKEW: Final = 30.0
"""How far the clocks of two machines may be apart, in seconds."""
_ATTEMPTS: Final = 5
"""How often another process of the same holder may be quicker."""


class Lease:
    """The lease of one repository, as one process holds it; used in one event loop.

    Parameters
    ----------
    bucket
        Where the object is.
    key
        Its key.
    holder
        Names this machine's state directory.
    clock
        Seconds since the epoch.
    """

    def __init__(self, *, bucket: Bucket, key: str, holder: str, clock: Callable[[], float] = time.time) -> None:
        self._bucket = bucket
        self._key = key
        self._holder = holder
        self._clock = clock
        self._until = 0.0
        self._users = 0
        self._renewal: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def enter(self) -> None:
        """Hold the lease until `leave`; any number of times.

        Raises
        ------
        RepositoryBusyError
            Another machine holds it.
        ObjectStoreError
            The bucket failed.
        """
        async with self._turn:
            if self._users == 0:
                await self._take()
                self._renewal = asyncio.create_task(self._renew())
            self._users += 1

    async def leave(self) -> None:
        """End one hold. The lease itself runs out by and by: other processes of this machine may need it."""
        async with self._turn:
            self._users -= 1
            if self._users == 0 and self._renewal is not None:
                self._renewal.cancel()
                with suppress(asyncio.CancelledError):
                    await self._renewal

    def check(self) -> None:
        """Make sure that it has not run out, since another machine may have taken it then.

        Raises
        ------
        StorageError
            It has.
        """
        if self._clock() >= self._until:
            raise StorageError(
                f"{self._bucket.place(self._key)} could not be renewed in time: another machine may be writing"
            )

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEWAL)
            try:
                await self._take()
            except (RepositoryBusyError, ObjectStoreError) as error:
                _log.warning("lease cannot be renewed", reason=str(error))  # `check` is what tells when it is over

    async def _take(self) -> None:
        for _ in range(_ATTEMPTS):
            condition = await self._condition()
            now = self._clock()
            content = json.dumps({"holder": self._holder, "until": now + _SECONDS}).encode()
            try:
                await self._bucket.request(
                    "put_object",
                    doing="taking the lease",
                    key=self._key,
                    body=MemoryPart(memoryview(content), hashlib.sha256(content).hexdigest()),
                    CacheControl="no-store",
                    ContentType="application/json",
                    **condition,
                )
            except PreconditionFailedError:
                continue  # somebody was quicker, perhaps a process of this machine
            self._until = now + _SECONDS
            return
        raise RepositoryBusyError(f"others take {self._bucket.place(self._key)} all the time")

    async def _condition(self) -> Mapping[str, Any]:
        """Say what the object must be for it to be replaced.

        Raises
        ------
        RepositoryBusyError
            Another machine holds it.
        """
        try:
            answer = await self._bucket.request("get_object", doing="reading the lease", key=self._key)
            async with answer["Body"] as stream:
                with self._bucket.failures(doing="reading the lease", key=self._key):
                    content = await stream.read()
        except ObjectMissingError:
            return {"IfNoneMatch": "*"}
        holder, until = _parse(content)
        if holder != self._holder and self._clock() < until + _SKEW:
            raise RepositoryBusyError(f"another machine writes to {self._bucket.place(self._key)}: {holder}")
        return {"IfMatch": answer["ETag"]}


def _parse(content: bytes) -> tuple[str, float]:
    try:
        document = json.loads(content)
        return str(document["holder"]), float(document["until"])
    except (ValueError, KeyError, TypeError):
        return "", 0.0  # nobody's: whatever wrote this was no lease
