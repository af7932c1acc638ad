"""Bodies of requests, their SHA-256 known beforehand: parts of a file, or bytes in memory."""

import hashlib
import os
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Final, Protocol

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from services.common.threads import run_to_end

__all__ = ["Body", "BodyPayload", "FilePart", "MemoryPart", "checksum", "hash_part"]

_CHUNK: Final = 1 << 20
"""How much of a file is read at once, in bytes."""

_WRITE: Final = 256 << 10
"""How much is given to a connection at once, in bytes: what the kernel does not take at once is copied."""


class Body(Protocol):
    """What a request sends, again if need be."""

    @property
    def size(self) -> int:
        """Number of bytes."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes, in hex digits."""

    def chunks(self) -> AsyncGenerator[bytes | memoryview, None]:
        """Iterate over the bytes."""


def checksum(body: Body) -> str:
    """Return the SHA-256 as `x-amz-checksum-sha256` has it."""
    return b64encode(bytes.fromhex(body.sha256)).decode()


class BodyPayload(Payload):
    """A body as botocore and aiohttp take it, for one request.

    Parameters
    ----------
    body
        What is sent.
    """

    def __init__(self, body: Body) -> None:
        super().__init__(body, content_type="application/octet-stream")
        self._size = body.size
        self.sha256 = body.sha256
        self.failure: OSError | None = None
        """Why the body could not be read; clients take every error while they send for a failure of the network."""
        self._body = body

    def __len__(self) -> int:
        """Return the number of bytes; botocore asks for it."""
        return self._body.size

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Refuse: layers are no text."""
        raise TypeError(f"a layer is no text in {encoding} ({errors})")

    def read(self) -> bytes:
        """Refuse; botocore takes nothing for a body that has no such method, and does not call it."""
        raise TypeError("a body is sent in pieces")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the body.

        Raises
        ------
        OSError
            It cannot be read, which is kept as `failure`, or the connection broke.
        """
        async with aclosing(self._body.chunks()) as chunks:
            while (chunk := await self._next(chunks)) is not None:
                await writer.write(chunk)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:  # noqa: ARG002 - always the size
        """Send the body; the length is that which the request names, its size."""
        await self.write(writer)

    async def _next(self, chunks: AsyncGenerator[bytes | memoryview, None]) -> bytes | memoryview | None:
        try:
            return await anext(chunks, None)
        except OSError as error:
            self.failure = error
            raise


@dataclass(frozen=True, slots=True)
class FilePart:
    """Some bytes of an open file, and what they are."""

    file: BinaryIO
    """The file, unbuffered; its own position stays, so that parts can be read side by side."""
    offset: int
    """Where the part starts, in bytes."""
    size: int
    """Size of the part, in bytes."""
    sha256: str
    """SHA-256 of the part, in hex digits."""
    threads: Executor
    """Where the file is read."""

    async def chunks(self) -> AsyncGenerator[bytes | memoryview, None]:
        """Iterate over the bytes.

        Raises
        ------
        OSError
            The file cannot be read, or has become shorter.
        """
        position, end = self.offset, self.offset + self.size
        while position < end:
            chunk = await run_to_end(
                self.threads, partial(os.pread, self.file.fileno(), min(_CHUNK, end - position), position)
            )
            if not chunk:
                raise OSError(f"{self.file.name} became shorter while it was uploaded")
            position += len(chunk)
            yield chunk


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """Bytes that came from elsewhere, and what they are."""

    content: memoryview
    """The bytes, which do not change."""
    sha256: str
    """Their SHA-256, in hex digits."""

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self.content)

    async def chunks(self) -> AsyncGenerator[bytes | memoryview, None]:
        """Iterate over the bytes."""
        for offset in range(0, self.size, _WRITE):
            yield self.content[offset : offset + _WRITE]


def hash_part(
    file: BinaryIO, offset: int, size: int, *, threads: Executor, tee: Callable[[memoryview], object]
) -> FilePart:
    """Hash a part of a file (blocking).

    Parameters
    ----------
    file
        The file, unbuffered.
    offset, size
        Where the part is, in bytes.
    threads
        Where the part is read when it is sent.
    tee
        Gets the part's bytes as well, so that the hash of the whole file needs no reading of its own.

    Raises
    ------
    OSError
        The file cannot be read, or is shorter.
    """
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(min(_CHUNK, size)))
    position, end = offset, offset + size
    while position < end:
        got = os.preadv(file.fileno(), [buffer[: end - position]], position)
        if not got:
            raise OSError(f"{file.name} became shorter while it was uploaded")
        hasher.update(buffer[:got])
        tee(buffer[:got])
        position += got
    return FilePart(file, offset, size, hasher.hexdigest(), threads)
