"""The third loop of the pipeline: resolve images that are asked for, fetch what is missing of them, and prepare it."""

import asyncio
import time
from collections.abc import Sequence

from services.common.together import all_of
from services.publisher.errors import JournalError
from services.publisher.journal.image_model import ImageRecord, ImageState, ImageVersion, VersionLayer
from services.publisher.journal.journal import Journal
from services.publisher.journal.versions import AddedLayer, PublishedImage
from services.publisher.metrics import Metrics
from services.publisher.pipeline.failures import Failures
from services.publisher.pipeline.images.admission import Admission, Admitted
from services.publisher.pipeline.images.blobs import BlobFetcher
from services.publisher.pipeline.images.claims import ImageClaims, ImageWork, LayerStep
from services.publisher.pipeline.images.resolver import Resolver
from services.publisher.pipeline.presence import is_visible
from services.publisher.pipeline.ready import ReadyQueue
from services.publisher.pipeline.units import ReadyImage, ReadyRemoval
from services.publisher.pipeline.workers import Workers
from services.registry.reference import ImageReference
from services.repository.interface import Repository

__all__ = ["ImagePreparation"]


class ImagePreparation:
    """Brings images to where a transaction can take them, several at a time."""

    def __init__(
        self,
        *,
        journal: Journal,
        repository: Repository,
        claims: ImageClaims,
        resolver: Resolver,
        admission: Admission,
        fetcher: BlobFetcher,
        workers: Workers,
        ready: ReadyQueue,
        failures: Failures,
        metrics: Metrics,
    ) -> None:
        self._journal = journal
        self._repository = repository
        self._claims = claims
        self._resolver = resolver
        self._admission = admission
        self._fetcher = fetcher
        self._workers = workers
        self._ready = ready
        self._failures = failures
        self._metrics = metrics

    async def recover(self, records: Sequence[ImageRecord]) -> None:
        """Take up images that another publisher may have published; one that it has is recorded.

        Parameters
        ----------
        records
            The images, which this publisher has taken over; in the end all are given back.

        Raises
        ------
        JournalError
            The journal failed.
        RepositoryError
            The repository cannot be read.
        """
        for record in records:
            version = None if record.digest is None else await self._journal.versions.read(record.name, record.digest)
            if version is not None and await is_visible(self._repository, version):
                await self._record(record, version)
        await self._record_layers()
        await self._journal.images.give_back(records)
        await self._journal.images.release([record.name for record in records])

    async def _record_layers(self) -> None:
        """Record the layers that an earlier publisher has published for images and not recorded: they can be collected.

        Their images may be what has been recorded now, or have failed after these layers had been added.
        """
        fetched = await self._journal.versions.unrecorded()
        there = [
            AddedLayer(digest=layer.digest, archive_size=layer.size, tree_size=None)
            for layer in fetched
            if await self._repository.lookup(layer.digest) is not None
        ]
        await self._journal.versions.added(there, revision=None)

    async def run(self) -> None:
        """Prepare images until cancelled.

        Raises
        ------
        JournalError
            The journal failed.
        """
        async with asyncio.TaskGroup() as group:
            if self._journal.shared:
                group.create_task(self._claims.follow())
            while True:
                work = await self._claims.next()
                if work.record.state is ImageState.REMOVING:
                    self._ready.expect()
                    self._ready.put(ReadyRemoval(work.record))
                else:
                    work.task = group.create_task(self._work(work))

    async def _work(self, work: ImageWork) -> None:
        """Bring one image as far as a transaction; whoever cancels this wants something else under its name."""
        unit = None
        try:
            unit = await self._bring(work)
        except JournalError:
            raise
        except Exception as error:  # noqa: BLE001 - one image's failure, whatever it is, stays its own
            await self._failures.of_image(work.record, error)
        finally:
            work.task = None
            if unit is None:
                self._claims.done([work.record.name])

    async def _bring(self, work: ImageWork) -> ReadyImage | None:
        """Resolve, fetch and prepare an image; None if there is nothing to publish."""
        began = time.monotonic()
        version = await self._resolver.resolve(work.record)
        seconds = time.monotonic() - began
        if not await self._journal.versions.resolved(work.record, version, seconds=seconds):
            return None
        self._metrics.image_seconds.labels("resolving").observe(seconds)
        unit = None
        self._ready.expect()
        try:
            unit = await self._complete(work, version)
        finally:
            if unit is None:
                self._ready.give_up()
        return unit

    async def _complete(self, work: ImageWork, version: ImageVersion) -> ReadyImage | None:
        """Fetch and prepare what is missing, and hand the image over; None if there is nothing to publish."""
        record, began = work.record, time.monotonic()
        async with self._admission.of(version.layers) as admitted:
            if not admitted.missing and await is_visible(self._repository, version):
                await self._record(record, version)
                return None
            await self._fetch(work, version, admitted)
            seconds = time.monotonic() - began
            if not await self._journal.images.ready(record, seconds=seconds):
                return None
            self._metrics.image_seconds.labels("fetching").observe(seconds)
            unit = ReadyImage(record, version, admitted.prepared)
            admitted.kept = True
            self._ready.put(unit)
            return unit

    async def _fetch(self, work: ImageWork, version: ImageVersion, admitted: Admitted) -> None:
        """Fetch and prepare the missing layers side by side, as far as there are workers."""
        missing = {layer.digest for layer in admitted.missing}
        work.steps = {
            layer.digest: LayerStep.MISSING if layer.digest in missing else LayerStep.PUBLISHED
            for layer in version.layers
        }
        known = sum(layer.size for layer in version.layers if layer.digest not in missing)
        await self._journal.images.counted(work.record, known=known, missing=sum(x.size for x in admitted.missing))
        await self._journal.versions.missing(version, missing)
        self._metrics.known_bytes.inc(known)
        reference = ImageReference.parse(version.reference)
        await all_of(self._fetch_layer(work, reference, layer, admitted) for layer in admitted.missing)

    async def _fetch_layer(
        self, work: ImageWork, reference: ImageReference, layer: VersionLayer, admitted: Admitted
    ) -> None:
        def report(count: int) -> None:
            work.fetched += count

        began = time.monotonic()
        async with self._workers.one(f"image {work.record.name}", f"registry {work.record.name.registry}"):
            work.steps[layer.digest] = LayerStep.FETCHING
            admitted.prepared.append(await self._fetcher.bring(reference, layer, report=report))
            work.steps[layer.digest] = LayerStep.PREPARED
        self._metrics.prepare_seconds.observe(time.monotonic() - began)

    async def _record(self, record: ImageRecord, version: ImageVersion) -> None:
        """Record that a version is visible which nobody has to publish any more."""
        if record.published == version.digest:
            await self._journal.versions.unchanged(record)
        else:
            image = PublishedImage(record=record, version=version, seconds=None)
            await self._journal.versions.published([image], (), revision=None)
