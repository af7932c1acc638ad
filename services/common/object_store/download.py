"""Downloading layer archives: streamed, verified, resumed where the connection broke."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import structlog
from aiofiles.threadpool.binary import AsyncFileIO

from services.common.arriving_file import ArrivingFile
from services.common.digest import Digest
from services.common.hashed_file import HashedFile
from services.common.object_store.bucket import Bucket
from services.common.object_store.errors import (
    ChecksumMismatchError,
    ObjectConflictError,
    ObjectTooLargeError,
    PreconditionFailedError,
    StoreUnavailableError,
)
from services.common.object_store.lookup import read_description
from services.common.object_store.model import StoredLayer, key_of
from services.common.threads import to_end
from services.common.together import together

__all__ = ["Downloader", "Sink"]

_BATCH: Final = 1 << 20
"""How much is handed to a thread at once, in bytes."""


@contextmanager
def _temporary(destination: Path) -> Iterator[HashedFile]:
    """Open a new hidden file beside a destination; it is removed in the end unless it has got its final name."""
    path = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.part")
    with HashedFile(path, "xb") as file:
        try:
            yield file
        finally:
            path.unlink(missing_ok=True)


Sink = HashedFile | ArrivingFile
"""What an object is received in."""


class _Transfer:
    """One object on its way into a sink, over as many connections as it takes.

    Parameters
    ----------
    bucket
        Where from.
    limit
        Largest object that is downloaded, in bytes.
    threads
        Where writing and hashing is done.
    sink
        Where to.
    digest
        The layer.
    deadline
        The time-out of the whole transfer, moved when the size is known.
    """

    def __init__(
        self,
        *,
        bucket: Bucket,
        limit: int,
        threads: Executor,
        sink: Sink,
        digest: Digest,
        deadline: asyncio.Timeout,
    ) -> None:
        self._bucket = bucket
        self._limit = limit
        self._sink = sink
        self._file = AsyncFileIO(sink, None, threads)
        self._digest = digest
        self._deadline = deadline
        self._key = key_of(digest)
        self._etag = ""
        self._log = structlog.get_logger(__name__).bind(digest=digest)
        self._layer: StoredLayer | None = None

    async def run(self) -> StoredLayer:
        """Receive the object and return its description; raises as `ObjectStore.download`."""
        while self._layer is None or self._sink.size < self._layer.size:
            async for attempt in self._bucket.attempts():
                with attempt:
                    await self._go_on()
        return self._layer

    async def _go_on(self) -> None:
        """Receive more of the object over one connection; one that breaks after some progress is no failure."""
        before = self._sink.size
        try:
            await self._receive()
        except StoreUnavailableError as error:
            if self._sink.size == before:
                raise
            self._log.info("download interrupted", received=self._sink.size, reason=str(error))

    async def _receive(self) -> None:
        answer = await self._request()
        async with answer["Body"] as stream:
            if self._layer is None:
                self._begin(answer)
            self._check_range(answer)
            await self._copy(stream)

    async def _request(self) -> Mapping[str, Any]:
        condition: dict[str, Any] = {}
        if self._layer is not None:
            condition["IfMatch"] = self._etag
        if self._sink.size:
            condition["Range"] = f"bytes={self._sink.size}-"
        try:
            return await self._bucket.request_once("get_object", doing="downloading", key=self._key, **condition)
        except PreconditionFailedError:
            raise ObjectConflictError(
                f"{self._bucket.place(self._key)} was overwritten while it was downloaded: find out by whom"
            ) from None

    def _begin(self, answer: Mapping[str, Any]) -> None:
        size, limit = answer["ContentLength"], self._limit
        if size > limit:
            raise ObjectTooLargeError(
                f"{self._bucket.place(self._key)} has {size} bytes, more than LAYER_STORE_OBJECT_LIMIT of {limit}"
            )
        self._layer = read_description(self._bucket, self._digest, answer, size=size)
        self._etag = answer["ETag"]
        self._deadline.reschedule(asyncio.get_running_loop().time() + self._bucket.settings.deadline(size))

    def _check_range(self, answer: Mapping[str, Any]) -> None:
        expected = None
        if self._layer is not None and self._sink.size:
            expected = f"bytes {self._sink.size}-{self._layer.size - 1}/{self._layer.size}"
        if answer.get("ContentRange") != expected:
            raise ObjectConflictError(
                f"{self._bucket.place(self._key)}: the server sent {answer.get('ContentRange') or 'all of it'} "
                f"when asked for {expected or 'all of it'}"
            )

    async def _copy(self, stream: Any) -> None:  # noqa: ANN401 - botocore has no types
        """Write what arrives while more arrives, and keep what has arrived when the stream breaks."""
        queue: asyncio.Queue[list[bytes]] = asyncio.Queue(maxsize=1)
        async with together() as group:
            group.create_task(self._write(queue))
            failure = await self._read(stream, queue)
        if failure is not None:
            raise failure

    async def _read(self, stream: Any, queue: asyncio.Queue[list[bytes]]) -> StoreUnavailableError | None:  # noqa: ANN401
        batch: list[bytes] = []
        size, failure = 0, None
        while True:
            try:
                with self._bucket.failures(doing="downloading", key=self._key):
                    chunk: bytes = await stream.read(_BATCH)
            except StoreUnavailableError as error:
                chunk, failure = b"", error
            batch.append(chunk)
            size += len(chunk)
            if not chunk or size >= _BATCH:
                await queue.put(batch)
                batch, size = [], 0
            if not chunk:
                return failure

    async def _write(self, queue: asyncio.Queue[list[bytes]]) -> None:
        while True:
            batch = await queue.get()
            await to_end(self._file.writelines(batch))
            if not batch[-1]:  # the end of the stream
                return


class Downloader:
    """Downloads archives from a bucket.

    Parameters
    ----------
    bucket
        Where from.
    limit
        Largest object that is downloaded, in bytes.
    threads
        Where writing and hashing is done.
    """

    def __init__(self, *, bucket: Bucket, limit: int, threads: Executor) -> None:
        self._bucket = bucket
        self._limit = limit
        self._threads = threads

    async def download(self, digest: Digest, destination: Path) -> StoredLayer:
        """Fetch an archive into a file; see `ObjectStore.download`."""
        key = key_of(digest)
        with _temporary(destination) as sink:
            layer = await self.receive(digest, sink)
            if sink.digest != digest:
                raise ChecksumMismatchError(
                    f"{self._bucket.place(key)} has the sha256 {sink.digest}: it was damaged or forged; "
                    "remove it and have the layer uploaded again"
                )
            sink.path.replace(destination)
        return layer

    async def receive(self, digest: Digest, sink: Sink) -> StoredLayer:
        """Append what is stored as an archive to a file; see `ObjectStore.receive`."""
        async with self._bucket.deadline(0, doing="downloading", key=key_of(digest)) as deadline:
            return await _Transfer(
                bucket=self._bucket,
                limit=self._limit,
                threads=self._threads,
                sink=sink,
                digest=digest,
                deadline=deadline,
            ).run()
