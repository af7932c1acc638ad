"""Where an image is pulled from: its registry's mirror, and what that fails to give from the registry itself."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

import structlog

from services.common.digest import Digest
from services.registry.blobs import stream_blob
from services.registry.errors import RegistryError
from services.registry.options import RegistryOptions
from services.registry.reference import ImageReference
from services.registry.transport import Transport

__all__ = ["Places"]

_log = structlog.get_logger(__name__)

_Result = TypeVar("_Result")


class Places:
    """Reads from mirrors and registries. A mirror gets the credentials that are known for it, and no others.

    Parameters
    ----------
    transport
        Sends requests to registries.
    mirrored
        Sends requests to mirrors; it need not try long, since there is another place.
    options
        Says how registries are spoken to, and their mirrors.
    """

    def __init__(self, *, transport: Transport, mirrored: Transport, options: RegistryOptions) -> None:
        self._transport = transport
        self._mirrored = mirrored
        self._options = options

    def spoken(self, reference: ImageReference) -> ImageReference:
        """Return a reference with the scheme that its registry is spoken to with."""
        return replace(reference, scheme=self._options.scheme(reference.authority))

    def _in_mirror(self, reference: ImageReference) -> ImageReference | None:
        mirror = self._options.mirrors.get(reference.authority.lower())
        return None if mirror is None else self.spoken(mirror.of(reference))

    def of(self, reference: ImageReference) -> Sequence[ImageReference]:
        """Return where an image is looked for, in this order: the registry itself is last."""
        mirror = self._in_mirror(reference)
        itself = self.spoken(reference)
        return (itself,) if mirror is None else (mirror, itself)

    async def quick_head(self, reference: ImageReference, *, accept: str, what: str) -> tuple[Digest, str] | None:
        """Ask for digest and media type by the shortest way; None where the ordinary one has to be taken."""
        if self._in_mirror(reference) is not None:
            return None
        return await self._transport.quick_head(self.spoken(reference), accept=accept, what=what)

    async def read(
        self, reference: ImageReference, read: Callable[[Transport, ImageReference], Awaitable[_Result]]
    ) -> _Result:
        """Read something from the first place that gives it.

        Parameters
        ----------
        reference
            The image, in its registry.
        read
            Reads from one place.

        Raises
        ------
        RegistryError
            The registry itself failed or refused as well.
        """
        mirror = self._in_mirror(reference)
        if mirror is not None:
            try:
                return await read(self._mirrored, mirror)
            except RegistryError as error:
                _warn(reference, error)
        return await read(self._transport, self.spoken(reference))

    async def stream(
        self, reference: ImageReference, digest: Digest, size: int, *, start: int
    ) -> AsyncGenerator[bytes, None]:
        """Yield a blob as it arrives, see `stream_blob`; the registry goes on where a mirror failed."""
        position = start
        mirror = self._in_mirror(reference)
        if mirror is not None:
            try:
                async with aclosing(stream_blob(self._mirrored, mirror, digest, size, start=start)) as pieces:
                    async for piece in pieces:
                        position += len(piece)
                        yield piece
            except RegistryError as error:
                _warn(reference, error)
            else:
                return
        async with aclosing(self.stream_from_registry(reference, digest, size, start=position)) as pieces:
            async for piece in pieces:
                yield piece

    def stream_from_registry(
        self, reference: ImageReference, digest: Digest, size: int, *, start: int
    ) -> AsyncGenerator[bytes, None]:
        """Yield a blob as it arrives from the registry itself, see `stream_blob`."""
        return stream_blob(self._transport, self.spoken(reference), digest, size, start=start)


def _warn(reference: ImageReference, error: RegistryError) -> None:
    _log.warning("mirror failed, asking the registry itself", image=reference.name, reason=str(error))
