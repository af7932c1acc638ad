"""Builds the publisher's work: the pipeline and the sweep, from what they work with."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from services.common.archive.limits import ArchiveLimits
from services.common.object_store.store import ObjectStore
from services.publisher.collection.collector import CollectionRules, LayerCollector
from services.publisher.consistency.check import ConsistencyCheck
from services.publisher.consistency.checks import Checks
from services.publisher.journal.journal import Journal
from services.publisher.metrics import Metrics
from services.publisher.pipeline.batches import BatchPublisher
from services.publisher.pipeline.claims import Claims
from services.publisher.pipeline.failures import Failures, RetryTimes
from services.publisher.pipeline.fetcher import Fetcher
from services.publisher.pipeline.flights import Flights
from services.publisher.pipeline.gate import Gate
from services.publisher.pipeline.holdings import Holdings
from services.publisher.pipeline.images.admission import Admission
from services.publisher.pipeline.images.blobs import BlobFetcher
from services.publisher.pipeline.images.claims import ImageClaims
from services.publisher.pipeline.images.preparation import ImagePreparation
from services.publisher.pipeline.images.resolver import Resolver
from services.publisher.pipeline.lookout import Lookout
from services.publisher.pipeline.membership import Membership
from services.publisher.pipeline.obstacle import Obstacle
from services.publisher.pipeline.outcomes import Outcomes
from services.publisher.pipeline.pipeline import Pipeline
from services.publisher.pipeline.preparation import Preparation
from services.publisher.pipeline.progress import Progress
from services.publisher.pipeline.publishing import Publishing
from services.publisher.pipeline.ready import BatchLimits, ReadyQueue
from services.publisher.pipeline.spool import Spool
from services.publisher.pipeline.sweep import Sweep, SweepTimes
from services.publisher.pipeline.workers import Workers
from services.publisher.settings import PublisherSettings
from services.registry.client import RegistryClient
from services.repository.interface import Repository

__all__ = ["Resources", "Work", "build_work"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What the publisher works with."""

    settings: PublisherSettings
    limits: ArchiveLimits
    journal: Journal
    store: ObjectStore
    repository: Repository
    registries: RegistryClient
    threads: Executor
    metrics: Metrics
    directories: Mapping[str, Path]
    """Places whose free space is watched, by their names in metrics."""
    leads: Callable[[], bool]
    """Tells whether it is this publisher's turn to do what one of several does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is done all the time, and what others steer and watch it by."""

    pipeline: Pipeline
    sweep: Sweep
    claims: Claims
    images: ImageClaims
    gate: Gate
    spool: Spool
    progress: Progress
    collector: LayerCollector
    membership: Membership
    """To be entered before the pipeline is run."""
    lookout: Lookout
    checks: Checks


def build_work(resources: Resources) -> Work:
    """Build the pipeline and the sweep."""
    settings, journal, metrics = resources.settings, resources.journal, resources.metrics
    times = RetryTimes(first=settings.retry_first, last=settings.retry_last)
    progress = Progress()
    gate = Gate(journal)
    membership = Membership(
        journal=journal, leads=resources.leads, name=settings.shown_name, lease=settings.lease_seconds
    )
    ready = ReadyQueue(BatchLimits(layers=settings.batch_layers, size=settings.batch_size))
    flights = Flights()
    claims = Claims(journal=journal, gate=gate, ready=ready, flights=flights)
    images = ImageClaims(journal=journal.images, gate=gate, places=settings.image_concurrency)
    spool = Spool(directory=settings.spool, limit=settings.spool_limit, threads=resources.threads)
    sweep = Sweep(
        store=resources.store,
        journal=journal,
        claims=claims,
        metrics=metrics,
        progress=progress,
        times=SweepTimes(
            interval=settings.sweep_interval,
            retry=times,
            upload_lifetime=timedelta(seconds=settings.upload_lifetime),
        ),
        leads=resources.leads,
    )
    turn, recovered = asyncio.Lock(), asyncio.Event()
    collector = LayerCollector(
        journal=journal,
        repository=resources.repository,
        flights=flights,
        gate=gate,
        turn=turn,
        recovered=recovered,
        store=resources.store,
        rules=CollectionRules(
            after=settings.collect_after, limit=settings.collect_limit, interval=settings.collect_interval
        ),
        metrics=metrics,
    )
    pipeline = _Builder(
        resources=resources,
        turn=turn,
        collector=collector,
        recovered=recovered,
        failures=Failures(journal=journal, metrics=metrics, times=times, refused_images=settings.retry_refused_images),
        obstacle=Obstacle(times=times, progress=progress),
        workers=Workers(settings.fetch_concurrency),
        holdings=Holdings(
            repository=resources.repository,
            spool=spool,
            flights=flights,
            claims=claims,
            image_claims=images,
            places=2 * settings.batch_layers,
        ),
        progress=progress,
        gate=gate,
        ready=ready,
        flights=flights,
        claims=claims,
        images=images,
        spool=spool,
        abandoned=membership.abandoned,
    ).pipeline()
    return Work(
        pipeline=pipeline,
        sweep=sweep,
        claims=claims,
        images=images,
        gate=gate,
        spool=spool,
        progress=progress,
        collector=collector,
        membership=membership,
        lookout=Lookout(gate=gate, claims=claims, images=images),
        checks=Checks(
            check=ConsistencyCheck(journal=journal, store=resources.store, repository=resources.repository),
            metrics=metrics,
            interval=settings.check_interval,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Builder:
    """Builds the pipeline from what its loops share."""

    resources: Resources
    turn: asyncio.Lock
    collector: LayerCollector
    recovered: asyncio.Event
    failures: Failures
    obstacle: Obstacle
    workers: Workers
    holdings: Holdings
    progress: Progress
    gate: Gate
    ready: ReadyQueue
    flights: Flights
    claims: Claims
    images: ImageClaims
    spool: Spool
    abandoned: asyncio.Event

    def pipeline(self) -> Pipeline:
        """Build it."""
        return Pipeline(
            journal=self.resources.journal,
            gate=self.gate,
            spool=self.spool,
            repository=self.resources.repository,
            obstacle=self.obstacle,
            preparation=self._preparation(),
            images=self._image_preparation(),
            publishing=self._publishing(),
            recover_collection=self.collector.recover,
            recovered=self.recovered,
            abandoned=self.abandoned,
        )

    def _preparation(self) -> Preparation:
        resources = self.resources
        fetcher = Fetcher(
            journal=resources.journal,
            store=resources.store,
            spool=self.spool,
            repository=resources.repository,
            limits=resources.limits,
            metrics=resources.metrics,
        )
        return Preparation(
            journal=resources.journal,
            claims=self.claims,
            holdings=self.holdings,
            fetcher=fetcher,
            ready=self.ready,
            failures=self.failures,
            metrics=resources.metrics,
            workers=self.workers,
            concurrency=resources.settings.fetch_concurrency,
        )

    def _image_preparation(self) -> ImagePreparation:
        resources = self.resources
        fetcher = BlobFetcher(
            client=resources.registries,
            spool=self.spool,
            repository=resources.repository,
            limits=resources.limits,
            metrics=resources.metrics,
            threads=resources.threads,
        )
        return ImagePreparation(
            journal=resources.journal,
            repository=resources.repository,
            claims=self.images,
            resolver=Resolver(client=resources.registries, versions=resources.journal.versions),
            admission=Admission(
                repository=resources.repository, flights=self.flights, spool=self.spool, holdings=self.holdings
            ),
            fetcher=fetcher,
            workers=self.workers,
            ready=self.ready,
            failures=self.failures,
            metrics=resources.metrics,
        )

    def _publishing(self) -> Publishing:
        resources = self.resources
        batches = BatchPublisher(
            journal=resources.journal,
            repository=resources.repository,
            failures=self.failures,
            outcomes=Outcomes(journal=resources.journal, failures=self.failures, metrics=resources.metrics),
            progress=self.progress,
            turn=self.turn,
        )
        return Publishing(
            ready=self.ready,
            gate=self.gate,
            batches=batches,
            holdings=self.holdings,
            obstacle=self.obstacle,
            metrics=resources.metrics,
        )
