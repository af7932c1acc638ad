"""From a digest to a prepared layer: look up, download, verify, prepare."""

from functools import partial
from typing import Final

import structlog

from services.common.archive.limits import ArchiveLimits
from services.common.digest import Digest
from services.common.object_store.model import StoredLayer
from services.common.object_store.store import ObjectStore
from services.publisher.errors import ClaimLostError, LayerNotThereError
from services.publisher.journal.journal import Journal
from services.publisher.metrics import Metrics
from services.publisher.pipeline.arrivals import Arrivals
from services.publisher.pipeline.spool import Spool
from services.repository.errors import LayerRefusedError
from services.repository.interface import PreparedLayer, Publication, Repository
from services.repository.layer import VerifiedLayer

__all__ = ["Fetcher"]

_log = structlog.get_logger(__name__)

_UNDESCRIBED: Final = "metadata"


class Fetcher:
    """Brings layers from the object store to where a transaction can take them.

    Parameters
    ----------
    limits
        Limits of the archives' content.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        store: ObjectStore,
        spool: Spool,
        repository: Repository,
        limits: ArchiveLimits,
        metrics: Metrics,
    ) -> None:
        self._journal = journal
        self._store = store
        self._spool = spool
        self._repository = repository
        self._arrivals = Arrivals(spool=spool, repository=repository)
        self._limits = limits
        self._metrics = metrics

    async def bring(self, digest: Digest) -> PreparedLayer | Publication:
        """Fetch, verify and prepare a layer, or find that it is published already.

        Raises
        ------
        ClaimLostError
            The layer is another publisher's by now.
        LayerNotThereError
            The store does not have it.
        LayerRefusedError
            It is for another repository, or is not what it claims to be.
        ObjectStoreError
            The store failed.
        RepositoryError
            The repository failed.
        """
        publication = await self._repository.lookup(digest)
        if publication is not None:
            return publication
        stored = await self._store.head(digest)
        if stored is None:
            raise LayerNotThereError("the store does not hold the object")
        layer = self._accepted(stored)
        async with self._spool.room(digest, layer.size):
            if await self._spool.holds(digest):
                prepared = await self._repository.prepare(layer)
            else:
                prepared = await self._arrivals.prepare(layer, partial(self._store.receive, digest))
                self._metrics.fetched_bytes.inc(layer.size)
            if not await self._journal.verified(digest, archive_size=layer.size):
                await self._repository.discard(prepared)
                raise ClaimLostError(f"layer {digest} is another publisher's by now")
            return prepared

    def _accepted(self, stored: StoredLayer) -> VerifiedLayer:
        """Check what the object's metadata says."""
        if stored.repository is None or stored.diff_id is None:
            raise LayerRefusedError(
                "the object's metadata does not name the repository and the diff ID: "
                "it was not uploaded by this suite, or its metadata was lost",
                kind=_UNDESCRIBED,
            )
        if stored.repository != self._repository.name:
            raise LayerRefusedError(
                f"the layer is for repository {stored.repository}, this publisher writes {self._repository.name}",
                kind="other_repository",
            )
        return VerifiedLayer(
            path=self._spool.path(stored.digest),
            digest=stored.digest,
            diff_id=stored.diff_id,
            size=stored.size,
            uncompressed_size=stored.uncompressed_size,
            limits=self._limits,
        )
