"""Builds the publisher's work: the pipeline and the sweep, from what they work with."""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from services.common.archive.limits import ArchiveLimits
from services.common.object_store.store import ObjectStore
from services.publisher.journal.journal import Journal
from services.publisher.metrics import Metrics
from services.publisher.pipeline.batches import BatchPublisher
from services.publisher.pipeline.claims import Claims
from services.publisher.pipeline.failures import Failures, RetryTimes
from services.publisher.pipeline.fetcher import Fetcher
from services.publisher.pipeline.gate import Gate
from services.publisher.pipeline.holdings import Holdings
from services.publisher.pipeline.obstacle import Obstacle
from services.publisher.pipeline.pipeline import Pipeline
from services.publisher.pipeline.preparation import Preparation
from services.publisher.pipeline.progress import Progress
from services.publisher.pipeline.publishing import Publishing
from services.publisher.pipeline.ready import BatchLimits, ReadyQueue
from services.publisher.pipeline.spool import Spool
from services.publisher.pipeline.sweep import Sweep, SweepTimes
from services.publisher.settings import PublisherSettings
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
    threads: Executor
    metrics: Metrics
    directories: Mapping[str, Path]
    """Places whose free space is watched, by their names in metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is done all the time, and what others steer and watch it by."""

    pipeline: Pipeline
    sweep: Sweep
    claims: Claims
    gate: Gate
    spool: Spool
    progress: Progress


def build_work(resources: Resources) -> Work:
    """Build the pipeline and the sweep."""
    settings, journal, metrics = resources.settings, resources.journal, resources.metrics
    times = RetryTimes(first=settings.retry_first, last=settings.retry_last)
    progress = Progress()
    gate = Gate(journal)
    ready = ReadyQueue(BatchLimits(layers=settings.batch_layers, size=settings.batch_size))
    claims = Claims(journal=journal, gate=gate, ready=ready)
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
    )
    pipeline = _pipeline(resources, times=times, progress=progress, gate=gate, ready=ready, claims=claims, spool=spool)
    return Work(pipeline=pipeline, sweep=sweep, claims=claims, gate=gate, spool=spool, progress=progress)


def _pipeline(
    resources: Resources,
    *,
    times: RetryTimes,
    progress: Progress,
    gate: Gate,
    ready: ReadyQueue,
    claims: Claims,
    spool: Spool,
) -> Pipeline:
    settings, journal, metrics = resources.settings, resources.journal, resources.metrics
    failures = Failures(journal=journal, metrics=metrics, times=times)
    obstacle = Obstacle(times=times, progress=progress)
    holdings = Holdings(repository=resources.repository, spool=spool, claims=claims, places=2 * settings.batch_layers)
    fetcher = Fetcher(
        journal=journal,
        store=resources.store,
        spool=spool,
        repository=resources.repository,
        limits=resources.limits,
        metrics=metrics,
    )
    preparation = Preparation(
        journal=journal,
        claims=claims,
        holdings=holdings,
        fetcher=fetcher,
        ready=ready,
        failures=failures,
        metrics=metrics,
        concurrency=settings.fetch_concurrency,
    )
    batches = BatchPublisher(
        journal=journal,
        repository=resources.repository,
        failures=failures,
        metrics=metrics,
        progress=progress,
    )
    publishing = Publishing(
        ready=ready, gate=gate, batches=batches, holdings=holdings, obstacle=obstacle, metrics=metrics
    )
    return Pipeline(
        journal=journal,
        gate=gate,
        spool=spool,
        repository=resources.repository,
        obstacle=obstacle,
        preparation=preparation,
        publishing=publishing,
    )
