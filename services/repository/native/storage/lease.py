"""Who may change what is visible in a bucket: one process at a time, wherever it runs.

The locks of `RepositoryLocks` hold between the processes of a machine. Other machines are kept out by a lease: an
object that names its holder, changed by conditional requests only. All processes with the same state directory are one
holder; the last of them that needs the lease gives it back.

A holder that dies or hangs does not give it back. No machine's clock is believed then: who waits takes it when the
object has not changed for as long as the lease holds. That it sees by a clock of its own that nobody can set; and for
how long it was so before the first look, the server says, which tells the time and when the object was written. The
former holder can do no harm when it goes on: whatever it does under the lease is a request with a *term*, after which
the server refuses it (`services.common.object_store.term`). The term begins by the server's clock, as its answers tell.
"""

import asyncio
import fcntl
import hashlib
import json
import os
import random
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog

from services.common.object_store.body import MemoryPart
from services.common.object_store.bucket import Bucket
from services.common.object_store.errors import ObjectMissingError, ObjectStoreError, PreconditionFailedError
from services.common.object_store.term import Term
from services.repository.native.errors import OvertakenError, RepositoryBusyError, StorageError
from services.repository.native.storage.conditions import only_if

__all__ = ["LEASE_FILE", "Lease"]

_log = structlog.get_logger(__name__)

LEASE_FILE: Final = ".cvmfs_thin_lease.json"
"""Relative to the root of the repository."""
_RENEWALS: Final = 4
"""How often it is renewed while it would hold."""
_MARGIN: Final = 1.0
"""Seconds that are waited for beyond a lease's time: the clocks of a store's servers may differ as much."""
_WHOLE: Final = 1.0
"""Servers tell their time in whole seconds, and terms begin with one."""
_GIVING_BACK: Final = 5.0
"""Longest time that giving it back may take, in seconds."""
_PAUSES: Final = (0.05, 0.2)
"""Shortest and longest pause between two looks at a lease that somebody else has, in seconds."""
_LOCAL_PAUSE: Final = 0.02
"""Seconds between two attempts at the lock of this machine."""
_FORMERLY: Final = 90.0
"""Seconds for which a lease holds that an earlier version of this suite has taken."""


class _Found(NamedTuple):
    """What is in the object."""

    version: str | None
    """None where it is not there."""
    holder: str
    """Empty where nobody has the lease."""
    seconds: float
    token: str
    unchanged: float = 0.0
    """For how many seconds it has been so at least, by the server's clock."""


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
    seconds
        For how long it holds without having been renewed.
    patience
        Longest wait for whoever has it, in seconds.
    lock
        File by which the processes of this machine know whether another one needs the lease.
    clock
        Seconds of a clock that nobody can set.
    """

    def __init__(
        self,
        *,
        bucket: Bucket,
        key: str,
        holder: str,
        seconds: int,
        patience: float,
        lock: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._holder = holder
        self._seconds = seconds
        self._patience = patience
        self._lock = lock
        self._clock = clock
        self._users = 0
        self._renewal: asyncio.Task[None] | None = None
        self._shared = -1
        """The lock of this machine, open while the lease is held."""
        self._turn = asyncio.Lock()
        self._version: str | None = None
        """Of the object, as this process has written it last."""
        self._until = 0.0
        """When it runs out, by `clock`."""
        self._kept_until = 0.0
        """Until when it is not given back, by `clock`."""
        self._term: Term | None = None
        self._server: float | None = None
        """By how much the server's clock is ahead of `clock`, at least."""
        self._doubt = _WHOLE
        """By how much more it may be, in seconds."""
        self._seen: tuple[str | None, float] = (None, 0.0)
        """The version that somebody else's lease has, and since when, by `clock`."""

    async def enter(self) -> None:
        """Hold the lease until `leave`; any number of times.

        Raises
        ------
        RepositoryBusyError
            Another machine holds it.
        StorageError
            The lock of this machine failed.
        ObjectStoreError
            The bucket failed.
        """
        async with self._turn:
            if self._users == 0:
                self._shared = await self._lock_here()
                try:
                    await self._take()
                except BaseException:
                    os.close(self._shared)
                    raise
                self._renewal = asyncio.create_task(self._renew())
            self._users += 1

    async def leave(self) -> None:
        """End one hold; the last one of this machine gives the lease back."""
        async with self._turn:
            self._users -= 1
            if self._users or self._renewal is None:
                return
            self._renewal.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewal
            self._term = None
            try:
                if self._clock() < self._kept_until:
                    return
                async with asyncio.timeout(_GIVING_BACK):
                    await self._give_back()
            except (ObjectStoreError, TimeoutError) as error:
                _log.warning("lease is not given back, it runs out by itself", reason=str(error))
            finally:
                os.close(self._shared)

    def term(self) -> Term:
        """Return the term of requests under the lease.

        Raises
        ------
        OvertakenError
            It is over, and another machine may hold the lease.
        """
        if self._term is None or self._clock() >= self._until:
            raise OvertakenError(
                f"{self._bucket.place(self._key)} could not be renewed in time: another publisher may be writing"
            )
        return self._term

    def keep(self) -> None:
        """Do not give it back before it has run out: what was sent under it may still be on its way."""
        self._kept_until = self._until

    @property
    def is_held(self) -> bool:
        """Whether this process has entered it."""
        return self._users > 0

    async def _lock_here(self) -> int:
        """Tell the other processes of this machine that the lease is needed."""
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"{self._lock} cannot be opened: {error.strerror}") from error
        try:
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return descriptor
                await asyncio.sleep(_LOCAL_PAUSE)  # one is giving the lease back
        except BaseException:
            os.close(descriptor)
            raise

    async def _take(self) -> None:
        if self._version is not None and self._server is not None and await self._write(self._version):
            return  # nobody has had it since this process gave it back
        deadline = self._clock() + self._patience
        while True:
            found = await self._look()
            if self._is_free(found) and await self._write(found.version):
                return
            if self._clock() >= deadline:
                raise RepositoryBusyError(
                    f"another publisher writes to {self._bucket.place(self._key)}: {found.holder or 'nobody for long'}"
                )
            await asyncio.sleep(random.uniform(*_PAUSES))  # noqa: S311 - so that those who wait do not come together

    def _is_free(self, found: _Found) -> bool:
        if found.holder in ("", self._holder):
            return True
        now = self._clock()
        since = now - found.unchanged
        if self._seen[0] == found.version:
            since = min(since, self._seen[1])  # by whole seconds, a look tells more or less
        self._seen = (found.version, since)
        return now >= since + found.seconds + _MARGIN

    async def _write(self, version: str | None) -> bool:
        """Take or renew the lease if the object is still as it was found; tell whether it was, and all is in time."""
        token = secrets.token_hex(8)
        begun, server, doubt = self._clock(), self._server, self._doubt
        try:
            answer = await self._put(self._holder, token, version)
            written = str(answer["ETag"])
        except PreconditionFailedError:
            found = await self._look()
            if found.token != token or found.version is None:
                return False
            written = found.version  # it was written, and the answer had got lost
        if server is None:
            # The first request of all; a server that does not tell its time is believed to have this machine's.
            server = self._server if self._server is not None else time.time() - self._clock()
        self._term = Term(int(begun + server), self._seconds)
        # For the server it may be over sooner than for others, by what was not known of its clock.
        self._version, self._until = written, begun + self._seconds - doubt
        return self._clock() < self._until

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._seconds / _RENEWALS)
            try:
                if await self._write(self._version):
                    continue
                found = await self._look()
                if found.holder == self._holder:
                    await self._write(found.version)  # another process of this machine has renewed it
                    continue
            except ObjectStoreError as error:
                _log.warning("lease cannot be renewed", reason=str(error))  # `term` is what tells when it is over
                continue
            _log.warning("lease has been lost", place=str(self._bucket.place(self._key)), holder=found.holder)
            self._until = 0.0
            return

    async def _give_back(self) -> None:
        try:
            fcntl.flock(self._shared, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another process of this machine needs it
        found = _Found(self._version, self._holder, 0, "")
        for _ in range(2):
            try:
                answer = await self._put("", secrets.token_hex(8), found.version)
            except PreconditionFailedError:
                # It may have been renewed without this process having got the answer.
                found = await self._look()
                if found.holder != self._holder:
                    return
            else:
                self._version = str(answer["ETag"])
                return

    async def _put(self, holder: str, token: str, version: str | None) -> Mapping[str, Any]:
        # Earlier versions of the suite go by `until`.
        document = {"holder": holder, "seconds": self._seconds, "token": token}
        document["until"] = time.time() + self._seconds if holder else 0
        content = json.dumps(document).encode()
        condition: Mapping[str, Any] = only_if(version)
        sent = self._clock()
        answer = await self._bucket.request(
            "put_object",
            doing="taking the lease",
            key=self._key,
            body=MemoryPart(memoryview(content), hashlib.sha256(content).hexdigest()),
            CacheControl="no-store",
            ContentType="application/json",
            **condition,
        )
        self._note_time(answer, sent)
        return answer

    async def _look(self) -> _Found:
        sent = self._clock()
        try:
            answer = await self._bucket.request("get_object", doing="reading the lease", key=self._key)
            async with answer["Body"] as stream:
                with self._bucket.failures(doing="reading the lease", key=self._key):
                    content = await stream.read()
        except ObjectMissingError:
            return _Found(None, "", 0, "")
        self._note_time(answer, sent)
        return _parse(content, str(answer["ETag"]), unchanged=_unchanged(answer))

    def _note_time(self, answer: Mapping[str, Any], sent: float) -> None:
        # It was that time before the answer came, so the server's clock is taken for earlier than it is, never later.
        now, date = self._clock(), _date(answer)
        if date is not None:
            self._server = date - now
            self._doubt = now - sent + 2 * _WHOLE


def _date(answer: Mapping[str, Any]) -> float | None:
    """Return the server's time when it answered, in whole seconds since the epoch; None where it does not tell."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return None if date is None else parsedate_to_datetime(date).timestamp()


def _unchanged(answer: Mapping[str, Any]) -> float:
    """Return for how many seconds an object has been what it is, at least: both times are rounded down to seconds."""
    date, written = _date(answer), answer.get("LastModified")
    return 0.0 if date is None or written is None else max(0.0, date - written.timestamp() - _WHOLE)


def _parse(content: bytes, version: str, *, unchanged: float) -> _Found:
    try:
        document = json.loads(content)
        seconds = float(document.get("seconds", _FORMERLY))
        return _Found(version, str(document["holder"]), seconds, str(document.get("token", "")), unchanged)
    except (ValueError, KeyError, TypeError, AttributeError):
        return _Found(version, "", 0, "")  # nobody's: whatever wrote this was no lease
