"""Uploading layer archives while they arrive, without a copy on disk.

All streams of a store share a bounded number of parts in memory: one waits for room while the others' parts are sent,
so that memory depends neither on the size of layers nor on their number.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable
from concurrent.futures import Executor
from contextlib import aclosing
from functools import partial
from typing import Final

from services.common.object_store.body import MemoryPart
from services.common.object_store.bucket import Bucket
from services.common.object_store.errors import ChecksumMismatchError
from services.common.object_store.model import AnnouncedLayer
from services.common.object_store.writer import ObjectWriter, SentPart, part_size
from services.common.threads import run_to_end

__all__ = ["StreamUploader"]

_PART: Final = 5 << 20
"""Size of a part, in bytes; S3 takes none below 5 MiB but the last."""

_ROOM: Final = 4
"""Parts of all streams that are in memory at the same time."""


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
        self._room = asyncio.Semaphore(_ROOM)

    async def upload(self, chunks: AsyncIterable[bytes], layer: AnnouncedLayer) -> bool:
        """Store an archive unless it is there; see `ObjectStore.upload_stream`."""
        writer = ObjectWriter(bucket=self._bucket, layer=layer)
        if layer.size <= _PART:
            return await self._store_whole(chunks, layer, writer)
        return await writer.put_parts(partial(self._send_parts, chunks, layer, writer))

    async def _store_whole(self, chunks: AsyncIterable[bytes], layer: AnnouncedLayer, writer: ObjectWriter) -> bool:
        if await writer.is_stored():
            return False
        async with self._room:
            async with aclosing(_pieces(chunks, layer, _PART)) as pieces:
                content = await anext(pieces, bytearray())
                # Nothing may follow, and what would follow is refused while it is looked for.
                await anext(pieces, None)
            part = await run_to_end(self._threads, partial(_hashed, content, hashlib.sha256()))
            _check(layer, len(content), part.sha256)
            return await writer.put(part)

    async def _send_parts(
        self, chunks: AsyncIterable[bytes], layer: AnnouncedLayer, writer: ObjectWriter, upload_id: str
    ) -> list[SentPart]:
        size = part_size(layer.size, usual=_PART)
        whole = hashlib.sha256()
        sent: dict[int, SentPart] = {}
        number = arrived = 0

        async def send(number: int, part: MemoryPart) -> None:
            sent[number] = await writer.send_part(upload_id, number, part, transferring=size * _ROOM)

        try:
            async with asyncio.TaskGroup() as group, aclosing(_pieces(chunks, layer, size)) as pieces:
                while (part := await self._next_part(pieces, whole)) is not None:
                    number, arrived = number + 1, arrived + part.size
                    # A callback, since a task that is cancelled before it starts runs nothing of its own.
                    group.create_task(send(number, part)).add_done_callback(lambda _: self._room.release())
                    del part
                _check(layer, arrived, whole.hexdigest())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [sent[number] for number in sorted(sent)]

    async def _next_part(self, pieces: AsyncGenerator[bytearray, None], whole: "hashlib._Hash") -> MemoryPart | None:
        """Wait for the next part; it occupies room, which its sending gives back."""
        await self._room.acquire()
        part = None
        try:
            content = await anext(pieces, None)
            if content is not None:
                part = await run_to_end(self._threads, partial(_hashed, content, whole))
        finally:
            if part is None:
                self._room.release()
        return part


def _hashed(content: bytearray, whole: "hashlib._Hash") -> MemoryPart:
    """Hash a part for itself and as the continuation of the whole (blocking)."""
    whole.update(content)
    return MemoryPart(content, hashlib.sha256(content).hexdigest())


async def _pieces(chunks: AsyncIterable[bytes], layer: AnnouncedLayer, size: int) -> AsyncGenerator[bytearray, None]:
    """Cut a stream into pieces of `size` bytes, the last one smaller; stop where it becomes longer than the layer."""
    # Pieces of one size from the beginning: growing ones would leave holes in memory that nothing else fits into.
    piece, filled = bytearray(min(size, layer.size)), 0
    arrived = 0
    async for chunk in chunks:
        arrived += len(chunk)
        if arrived > layer.size:
            raise ChecksumMismatchError(f"more than the {layer.size} bytes of {layer.digest.oci} arrive: not stored")
        rest = memoryview(chunk)
        while rest:
            taken = rest[: len(piece) - filled]
            piece[filled : filled + len(taken)] = taken
            filled += len(taken)
            rest = rest[len(taken) :]
            if filled == len(piece):
                yield piece
                piece, filled = bytearray(min(size, layer.size - arrived + len(rest))), 0
    if filled:
        yield piece[:filled]


def _check(layer: AnnouncedLayer, arrived: int, found: str) -> None:
    if (arrived, found) != (layer.size, layer.digest):
        raise ChecksumMismatchError(
            f"{arrived} bytes with the sha256 {found} arrived, {layer.digest.oci} of {layer.size} bytes was announced: "
            "it is damaged where it comes from, or on its way; not stored"
        )
