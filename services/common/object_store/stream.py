"""Uploading layer archives while they arrive, without a copy on disk.

All streams of a store share a bounded number of buffers, a part in each: one waits for a buffer while the others' parts
are sent, so that memory depends neither on the size of layers nor on their number.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator
from concurrent.futures import Executor
from functools import partial
from typing import Final

from services.common.object_store.body import MemoryPart
from services.common.object_store.bucket import Bucket
from services.common.object_store.errors import StreamMismatchError
from services.common.object_store.model import AnnouncedLayer
from services.common.object_store.writer import ObjectWriter, SentPart, part_size
from services.common.threads import run_to_end
from services.common.together import together

__all__ = ["StreamUploader"]

_PART: Final = 5 << 20
"""Size of a part, in bytes; S3 takes none below 5 MiB but the last."""

_BUFFERS: Final = 6
"""Parts of all streams that are in memory at the same time, those that still arrive included."""


class _Buffers:
    """Memory that is used again and again: the allocator would give it back and have it cleared for every part."""

    def __init__(self, number: int) -> None:
        self._free: list[bytearray] = []
        self._places = asyncio.Semaphore(number)

    async def take(self, size: int) -> bytearray:
        """Wait for a buffer of at least `size` bytes; it is to be given back."""
        await self._places.acquire()
        buffer = self._free.pop() if self._free else bytearray()
        return buffer if len(buffer) >= size else bytearray(max(size, _PART))

    def give_back(self, buffer: bytearray, _user: asyncio.Task[None] | None = None) -> None:
        """Take a buffer back, which nobody uses any more; also as the callback of the task that used it."""
        self._free.append(buffer)
        self._places.release()


class _Source:
    """A stream of which parts are taken.

    Parameters
    ----------
    chunks
        The stream.
    layer
        What it is to be.
    """

    def __init__(self, chunks: AsyncIterable[bytes], layer: AnnouncedLayer) -> None:
        self._chunks: AsyncIterator[bytes] = aiter(chunks)
        self._layer = layer
        self._ahead = memoryview(b"")
        self._arrived = 0

    async def fill(self, target: memoryview) -> None:
        """Wait until a buffer is full.

        Raises
        ------
        StreamMismatchError
            The stream ends before.
        """
        while target:
            if not self._ahead and not await self._next():
                raise StreamMismatchError(
                    f"{self._arrived} of the {self._layer.size} bytes of {self._layer.digest.oci} arrive: not stored"
                )
            taken = min(len(self._ahead), len(target))
            target[:taken] = self._ahead[:taken]
            self._ahead, target = self._ahead[taken:], target[taken:]
            self._arrived += taken

    async def end(self, found: str) -> None:
        """Make sure that nothing follows, and that it was the layer.

        Parameters
        ----------
        found
            The SHA-256 of what filled the buffers.

        Raises
        ------
        StreamMismatchError
            Something follows, or it was another one.
        """
        if self._ahead or await self._next():
            raise StreamMismatchError(
                f"more than the {self._layer.size} bytes of {self._layer.digest.oci} arrive: not stored"
            )
        if found != self._layer.digest:
            raise StreamMismatchError(
                f"{self._arrived} bytes with the sha256 {found} arrived, {self._layer.digest.oci} was announced: "
                "it is damaged where it comes from, or on its way; not stored"
            )

    async def _next(self) -> bool:
        """Wait for more; return False at the end."""
        while not self._ahead:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                return False
            self._ahead = memoryview(chunk)
        return True


class StreamUploader:
    """Uploads archives that arrive on the event loop.

    Parameters
    ----------
    bucket
        Where to.
    threads
        Where hashing is done.
    """

    def __init__(self, *, bucket: Bucket, threads: Executor) -> None:
        self._bucket = bucket
        self._threads = threads
        self._buffers = _Buffers(_BUFFERS)

    async def upload(self, chunks: AsyncIterable[bytes], layer: AnnouncedLayer) -> bool:
        """Store an archive unless it is there; see `ObjectStore.upload_stream`."""
        writer = ObjectWriter(bucket=self._bucket, layer=layer)
        source = _Source(chunks, layer)
        if layer.size <= _PART:
            return await self._store_whole(source, layer, writer)
        return await writer.put_parts(partial(self._send_parts, source, layer, writer))

    async def _store_whole(self, source: _Source, layer: AnnouncedLayer, writer: ObjectWriter) -> bool:
        if await writer.is_stored():
            return False
        buffer = await self._buffers.take(layer.size)
        try:
            part = await self._next_part(source, memoryview(buffer)[: layer.size], hashlib.sha256())
            await source.end(part.sha256)
            return await writer.put(part)
        finally:
            self._buffers.give_back(buffer)

    async def _send_parts(
        self, source: _Source, layer: AnnouncedLayer, writer: ObjectWriter, upload_id: str
    ) -> list[SentPart]:
        size = part_size(layer.size, usual=_PART)
        whole = hashlib.sha256()
        sent: dict[int, SentPart] = {}

        async def send(number: int, part: MemoryPart) -> None:
            sent[number] = await writer.send_part(upload_id, number, part, transferring=size * _BUFFERS)

        async with together() as group:
            for number, offset in enumerate(range(0, layer.size, size), start=1):
                buffer = await self._buffers.take(size)
                try:
                    content = memoryview(buffer)[: min(size, layer.size - offset)]
                    part = await self._next_part(source, content, whole)
                    sending = group.create_task(send(number, part))
                except BaseException:
                    self._buffers.give_back(buffer)
                    raise
                # A callback, since a task that is cancelled before it starts runs nothing of its own.
                sending.add_done_callback(partial(self._buffers.give_back, buffer))
            await source.end(whole.hexdigest())
        return [sent[number] for number in sorted(sent)]

    async def _next_part(self, source: _Source, target: memoryview, whole: "hashlib._Hash") -> MemoryPart:
        await source.fill(target)
        return await run_to_end(self._threads, partial(_hashed, target, whole))


def _hashed(content: memoryview, whole: "hashlib._Hash") -> MemoryPart:
    """Hash a part for itself and as the continuation of the whole (blocking)."""
    whole.update(content)
    return MemoryPart(content, hashlib.sha256(content).hexdigest())
