"""From a layer of an image to a prepared layer: download, prepare, verify, all at the same time."""

from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from contextlib import aclosing

import structlog
from aiofiles.threadpool.binary import AsyncFileIO

from services.common.archive.limits import ArchiveLimits
from services.common.arriving_file import ArrivingFile
from services.common.threads import to_end
from services.publisher.journal.image_model import VersionLayer
from services.publisher.metrics import Metrics
from services.publisher.pipeline.arrivals import Arrivals
from services.publisher.pipeline.spool import Spool
from services.registry.blobs import batched
from services.registry.client import RegistryClient
from services.registry.reference import ImageReference
from services.repository.errors import LayerRefusedError
from services.repository.interface import PreparedLayer, Repository
from services.repository.layer import VerifiedLayer

__all__ = ["BlobFetcher"]

_log = structlog.get_logger(__name__)


class BlobFetcher:
    """Brings layers from registries to where a transaction can take them.

    Parameters
    ----------
    limits
        Limits of the archives' content.
    threads
        Where files are written.
    """

    def __init__(
        self,
        *,
        client: RegistryClient,
        spool: Spool,
        repository: Repository,
        limits: ArchiveLimits,
        metrics: Metrics,
        threads: Executor,
    ) -> None:
        self._client = client
        self._spool = spool
        self._repository = repository
        self._limits = limits
        self._metrics = metrics
        self._threads = threads
        self._arrivals = Arrivals(spool=spool, repository=repository)

    async def bring(
        self, reference: ImageReference, layer: VersionLayer, *, report: Callable[[int], object]
    ) -> PreparedLayer:
        """Fetch, verify and prepare a layer, for which the spool has room.

        Parameters
        ----------
        reference
            The image that it is of.
        report
            Told of bytes that have arrived.

        Raises
        ------
        LayerRefusedError
            The layer is not what its image says, or breaks a rule; the text names it.
        RegistryError
            The registry failed or refused.
        RepositoryError
            The repository failed.
        OSError
            The spool failed.
        """
        verified = VerifiedLayer(
            path=self._spool.path(layer.digest),
            digest=layer.digest,
            diff_id=layer.diff_id,
            size=layer.size,
            uncompressed_size=None,
            limits=self._limits,
        )

        try:
            if await self._spool.holds(layer.digest):
                return await self._repository.prepare(verified)
            prepared = await self._fetch(reference, verified, report)
        except LayerRefusedError as error:
            raise LayerRefusedError(f"layer {layer.digest.oci}: {error}", kind=error.kind) from error
        self._metrics.fetched_bytes.inc(layer.size)
        return prepared

    async def _fetch(
        self, reference: ImageReference, layer: VerifiedLayer, report: Callable[[int], object]
    ) -> PreparedLayer:
        """Fetch a layer; once more, from the registry itself, where what came from a mirror is not the layer."""
        received = 0

        def count(size: int) -> None:
            nonlocal received
            received += size
            report(size)

        try:
            pieces = self._client.unverified_blob(reference, layer.digest, layer.size)
            return await self._receive(layer, pieces, count)
        except LayerRefusedError as error:
            if error.kind != "digest" or not self._client.has_mirror(reference):
                raise
            _log.warning(
                "a mirror gave a damaged layer, asking the registry itself", image=reference.name, digest=layer.digest
            )
        self._metrics.mirror_damage.labels(reference.authority).inc()
        report(-received)
        pieces = self._client.unverified_blob_of_registry(reference, layer.digest, layer.size)
        return await self._receive(layer, pieces, report)

    async def _receive(
        self, layer: VerifiedLayer, pieces: AsyncGenerator[bytes, None], report: Callable[[int], object]
    ) -> PreparedLayer:
        async def receive(file: ArrivingFile) -> None:
            sink = AsyncFileIO(file, None, self._threads)
            async with aclosing(batched(pieces)) as batches:
                async for batch in batches:
                    await to_end(sink.write(batch))
                    report(len(batch))

        return await self._arrivals.prepare(layer, receive)
