"""Content of blobs: streamed, resumed where a connection broke or went silent, and verified.

The time that counts against a transfer is that spent waiting for the registry, so that a slow consumer harms nothing.
"""

import asyncio
import hashlib
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import structlog
from yarl import URL

from services.common.digest import Digest
from services.registry.errors import (
    DigestMismatchError,
    InvalidAnswerError,
    RegistryUnavailableError,
)
from services.registry.http import Answer
from services.registry.reference import ImageReference
from services.registry.transport import Request, Transport

__all__ = ["batched", "mismatch", "stream_blob", "verified"]

_BATCH: Final = 1 << 20
"""How much is hashed and handed on at once, in bytes; a smaller batch costs more for its thread than for its hash."""

_PROGRESS: Final = 64 << 10
"""A connection that brought at least so many bytes before it broke is no failed attempt."""

_START: Final = 300.0
"""How long a transfer may take besides what its size accounts for, in seconds."""

_FIRST_PAUSE: Final = 0.2
"""How long is waited before the second connection, in seconds; twice as long before each further one."""

_WHOLE: Final = 200
_PARTIAL: Final = 206
_NOT_THERE: Final = 416


@dataclass(slots=True)
class _Transfer:
    """One blob on its way, over as many connections as it takes."""

    transport: Transport
    reference: ImageReference
    digest: Digest
    size: int
    position: int
    waited: float = 0.0
    ahead: bytes = b""
    resumable: bool = True
    """Whether the registry has not refused yet to begin in the middle."""

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the rest of the blob over one connection, as it arrives.

        Raises
        ------
        RegistryError
            As `stream_blob`.
        """
        async with self.transport.send(self._request(), accepted=(_WHOLE, _PARTIAL, _NOT_THERE)) as answer:
            self.ahead = b""
            if self._starts_over(answer):
                await self._skip(answer)
            while self.position < self.size:
                piece = await self._next(answer)
                if not piece:
                    raise RegistryUnavailableError(
                        f"{answer.what}: the body ended after {self.position} of {self.size} bytes: try again later"
                    )
                if self.position + len(piece) > self.size:
                    raise self._too_long()
                self.position += len(piece)
                yield piece
            if await self._next(answer):
                raise self._too_long()

    def _request(self) -> Request:
        return Request(
            reference=self.reference,
            url=URL(f"{self.reference.api_url}/{self.reference.repository}/blobs/{self.digest.oci}"),
            what=f"downloading blob {self.digest.oci} of {self.reference.name}",
            headers={"Range": f"bytes={self.position}-"} if self.position and self.resumable else {},
        )

    def _starts_over(self, answer: Answer) -> bool:
        """Return whether the body starts at the beginning although its rest was asked for."""
        if answer.status == _WHOLE:
            if answer.length is not None and answer.length != self.size:
                raise self._mismatch(f"has {answer.length} bytes, its image names {self.size}")
            return self.position > 0
        if answer.status == _NOT_THERE and self.position and self.resumable:
            # Some registries and caches cannot, or have another blob now, which its size or digest will tell.
            self.resumable = False
            raise RegistryUnavailableError(
                f"{answer.what}: the registry does not begin after {self.position} bytes (HTTP {_NOT_THERE}): try again"
            )
        if answer.status == _PARTIAL and self.position:
            told, expected = answer.headers.get("Content-Range", ""), f"bytes {self.position}-{self.size - 1}/"
            if told in (f"{expected}{self.size}", f"{expected}*"):
                return False
        told = answer.headers.get("Content-Range", "nothing")[:80]
        raise InvalidAnswerError(
            f"{answer.what}: asked for {self.size} bytes from {self.position} on, the registry answers with "
            f"HTTP {answer.status} and {told!r}: ask those who run it"
        )

    async def _skip(self, answer: Answer) -> None:
        """Pass over what has been yielded before; if it is another one now, the whole does not have the digest."""
        left = self.position
        while left:
            piece = await self._next(answer)
            if not piece:
                raise RegistryUnavailableError(f"{answer.what}: the body ended early: try again later")
            left, self.ahead = left - min(left, len(piece)), piece[left:]

    async def _next(self, answer: Answer) -> bytes:
        if self.ahead:
            piece, self.ahead = self.ahead, b""
            return piece
        now = asyncio.get_running_loop().time
        began = now()
        piece = await answer.next_piece()
        self.waited += now() - began
        if self.waited > _START + self.size / self.transport.options.slowest:
            # Whatever comes next would be as slow, hence no other attempt.
            raise RegistryUnavailableError(
                f"{answer.what}: {self.position} of {self.size} bytes in {self.waited:.0f} s is too slow: "
                "try again later",
                retry_after=math.inf,
            )
        return piece

    def _mismatch(self, text: str) -> DigestMismatchError:
        return mismatch(self.reference, self.digest, text)

    def _too_long(self) -> DigestMismatchError:
        return self._mismatch(f"has more than the {self.size} bytes that its image names")


def mismatch(reference: ImageReference, digest: Digest, text: str) -> DigestMismatchError:
    """Return the error about a blob that is not what it is known by; the text says how."""
    return DigestMismatchError(
        f"blob {digest.oci} of {reference.name} {text}: "
        "what the registry holds is damaged or forged: push the image anew"
    )


async def stream_blob(
    transport: Transport, reference: ImageReference, digest: Digest, size: int, *, start: int = 0
) -> AsyncGenerator[bytes, None]:
    """Yield a blob as it arrives: of the right size, but its digest is for `verified`, or whoever else hashes it.

    Parameters
    ----------
    transport
        Sends the requests.
    reference
        The image whose repository the blob is in.
    digest
        SHA-256 of the blob.
    size
        Size of the blob, in bytes.
    start
        How much of it is not wanted, in bytes from its beginning.

    Raises
    ------
    DigestMismatchError
        The content does not have the size.
    RegistryUnavailableError
        The transfer broke and could not be resumed, or is too slow.
    RegistryError
        The registry refused, or answered what it must not.
    """
    log = structlog.get_logger(__name__)
    transfer = _Transfer(transport, reference, digest, size, position=start)
    failures = 0
    while transfer.position < size:
        before = transfer.position
        try:
            async with aclosing(transfer.pieces()) as pieces:
                async for piece in pieces:
                    yield piece
        except RegistryUnavailableError as error:
            failures = 1 if transfer.position - before >= _PROGRESS else failures + 1
            pause = transport.pause_after(error)
            if transfer.position < size and (pause is False or failures >= transport.options.attempts):
                raise
            log.info("download interrupted", digest=digest, received=transfer.position, reason=str(error))
            await asyncio.sleep(_FIRST_PAUSE * 2 ** (failures - 1) if pause is True else pause)


async def verified(
    pieces: AsyncGenerator[bytes, None], reference: ImageReference, digest: Digest
) -> AsyncGenerator[bytes, None]:
    """Yield a blob in pieces of some 1 MiB; it is the right one when the iteration ends without an error.

    Parameters
    ----------
    pieces
        The blob; closed in the end.
    reference
        The image whose repository it is in.
    digest
        SHA-256 of the blob.

    Raises
    ------
    DigestMismatchError
        The content does not have the digest.
    """
    hasher = hashlib.sha256()
    async with aclosing(batched(pieces)) as batches:
        async for batch in batches:
            await asyncio.to_thread(hasher.update, batch)
            yield batch
    if hasher.hexdigest() != digest:
        raise mismatch(reference, digest, f"has the digest sha256:{hasher.hexdigest()}")


async def batched(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Join pieces to some of about 1 MiB, which are worth a call of a thread; close them in the end."""
    batch: list[bytes] = []
    size = 0
    async with aclosing(pieces):
        async for piece in pieces:
            batch.append(piece)
            size += len(piece)
            if size >= _BATCH:
                yield b"".join(batch)
                batch, size = [], 0
        if batch:
            yield b"".join(batch)
