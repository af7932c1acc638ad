"""Layers are prepared while their archives arrive, so that a large one takes as long as the slower of the two."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from services.common.arriving_file import ArrivalFailedError, ArrivingFile
from services.common.together import together
from services.publisher.pipeline.spool import Spool
from services.repository.interface import PreparedLayer, Repository
from services.repository.layer import VerifiedLayer

__all__ = ["Arrivals"]

_START: Final = 600.0
_SLOWEST: Final = 48 << 10
"""How long archives may be waited for, beside the time that reading them may take: this many seconds, and one for so
many bytes. Transfers have closer limits of their own; this is how long a reader waits whom nobody tells of them."""


class Arrivals:
    """Prepares layers from archives that are still arriving in the spool, for which it has room.

    Parameters
    ----------
    spool
        Where archives are.
    repository
        What prepares layers.
    """

    def __init__(self, *, spool: Spool, repository: Repository) -> None:
        self._spool = spool
        self._repository = repository

    async def prepare(
        self, layer: VerifiedLayer, receive: Callable[[ArrivingFile], Awaitable[object]]
    ) -> PreparedLayer:
        """Receive an archive and prepare its layer at the same time.

        The archive is in the spool afterwards, verified, where the repository may read it again. Where it does not, it
        goes: publishing brings all that has been written to the disk, and would bring the archive there as well, which
        takes as long as the layer does.

        Parameters
        ----------
        layer
            What the archive must be.
        receive
            Appends the archive to a file; its digest is for whoever reads it.

        Raises
        ------
        Exception
            What `receive` raised.
        LayerRefusedError, RepositoryError
            As `Repository.prepare`.
        OSError
            The spool failed.
        """
        limits = layer.limits.model_copy(update={"seconds": layer.limits.seconds + _START + layer.size / _SLOWEST})
        async with self._spool.arriving(layer.digest) as file:
            try:
                async with together() as group:
                    group.create_task(_receive(file, receive))
                    preparing = group.create_task(self._repository.prepare(replace(layer, arrival=file, limits=limits)))
            except ArrivalFailedError as error:
                raise error.cause from None
            prepared = preparing.result()
            if not prepared.is_stored:
                file.path.replace(layer.path)
        return replace(prepared, layer=layer)


async def _receive(file: ArrivingFile, receive: Callable[[ArrivingFile], Awaitable[object]]) -> None:
    try:
        await receive(file)
    except BaseException as error:
        file.fail(error)
        raise
    file.complete()
