"""Builds the publisher from its settings: every object, once, by keyword arguments."""

from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from aiohttp import web

from services.common.archive.limits import ArchiveLimits
from services.common.object_store.settings import ObjectStoreSettings
from services.common.object_store.store import ObjectStore
from services.common.repository_name import RepositoryName
from services.common.settings import SettingsError
from services.publisher.app import create_app
from services.publisher.consistency.check import ConsistencyCheck
from services.publisher.handlers.consistency import ConsistencyHandler
from services.publisher.handlers.events import EventsHandler
from services.publisher.handlers.health import HealthHandler
from services.publisher.handlers.layers import LayersHandler
from services.publisher.handlers.page import PageHandler
from services.publisher.handlers.status import StatusHandler
from services.publisher.handlers.token import TokenCheck
from services.publisher.journal.journal import Journal
from services.publisher.metrics import Metrics
from services.publisher.page.renderer import PageRenderer
from services.publisher.pipeline.batches import BatchPublisher
from services.publisher.pipeline.failures import Failures, RetryTimes
from services.publisher.pipeline.fetcher import Fetcher
from services.publisher.pipeline.gate import Gate
from services.publisher.pipeline.pipeline import Pipeline
from services.publisher.pipeline.ready import BatchLimits, ReadyQueue
from services.publisher.pipeline.spool import Spool
from services.publisher.pipeline.sweep import Sweep
from services.publisher.pipeline.trust import TrustWatch
from services.publisher.settings import PublisherSettings, RepositoryKind
from services.publisher.status.reader import StatusReader
from services.repository.cvmfs_server.place import Place
from services.repository.cvmfs_server.repository import CvmfsServerRepository
from services.repository.cvmfs_server.tool import CvmfsServer, ToolTimeouts
from services.repository.directory import DirectoryRepository
from services.repository.interface import Repository
from services.repository.native.repository import NativeRepository
from services.repository.native.storage.place import open_storage
from services.repository.native.trust.keeper import WhitelistKeeper
from services.repository.native.trust.keyring import KeyFiles

__all__ = ["Publisher", "build_publisher"]

_MORE_THREADS: Final = 2
"""Threads besides those that prepare layers, so that publishing and look-ups never wait for them."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """What runs: the HTTP application and the services behind it."""

    app: web.Application
    services: tuple[Callable[[], Coroutine[Any, Any, None]], ...]
    """Each runs until it is cancelled."""


@asynccontextmanager
async def build_publisher(
    settings: PublisherSettings, store_settings: ObjectStoreSettings, limits: ArchiveLimits
) -> AsyncIterator[Publisher]:
    """Build everything; it is closed at the end of the context.

    Raises
    ------
    SettingsError
        A setting is missing.
    PublisherError
        The journal or the repository cannot be used.
    """
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(Journal(settings.state / "journal.sqlite"))
        store = await stack.enter_async_context(ObjectStore(settings=store_settings))
        threads = ThreadPoolExecutor(settings.fetch_concurrency + _MORE_THREADS, "publisher")
        stack.callback(threads.shutdown)
        repository = await _repository(settings, stack, threads, journal)
        metrics = Metrics()
        times = RetryTimes(first=settings.retry_first, last=settings.retry_last)
        failures = Failures(journal=journal, metrics=metrics, times=times)
        spool = Spool(directory=settings.spool, limit=settings.spool_limit, threads=threads)
        fetcher = Fetcher(
            journal=journal,
            store=store,
            spool=spool,
            repository=repository,
            limits=limits,
            metrics=metrics,
        )
        gate = Gate(journal)
        batches = BatchPublisher(journal=journal, repository=repository, failures=failures, metrics=metrics)
        pipeline = Pipeline(
            journal=journal,
            spool=spool,
            repository=repository,
            fetcher=fetcher,
            ready=ReadyQueue(BatchLimits(layers=settings.batch_layers, size=settings.batch_size)),
            batches=batches,
            failures=failures,
            gate=gate,
            metrics=metrics,
            times=times,
            concurrency=settings.fetch_concurrency,
            ahead=2 * settings.batch_layers,
        )
        sweep = Sweep(
            store=store,
            journal=journal,
            pipeline=pipeline,
            metrics=metrics,
            times=times,
            interval=settings.sweep_interval,
            upload_lifetime=timedelta(seconds=settings.upload_lifetime),
        )
        checks = {"journal": journal.check, "store": store.check, "repository": repository.check}
        services, warnings = [pipeline.run, sweep.run], {}
        directories = {"spool": settings.spool, "state": settings.state}
        trust: WhitelistKeeper | TrustWatch | None = None
        if isinstance(repository, NativeRepository):
            trust = WhitelistKeeper(whitelist=repository.whitelist, threads=threads)
            checks["whitelist"], warnings["whitelist"] = trust.check, trust.warning
        elif isinstance(repository, CvmfsServerRepository):
            trust = TrustWatch(repository)
            directories |= repository.directories()
        if trust is not None:
            services.append(trust.run)
        status = StatusReader(
            repository=repository.name,
            journal=journal,
            pipeline=pipeline,
            batches=batches,
            gate=gate,
            sweep=sweep,
            trust=trust,
            spool=spool,
            directories=directories,
        )
        token = TokenCheck(settings.event_token)
        handlers = (
            EventsHandler(
                token=token,
                journal=journal,
                pipeline=pipeline,
                metrics=metrics,
                bucket=store_settings.bucket,
                limit=settings.event_limit,
            ),
            LayersHandler(token=token, journal=journal, pipeline=pipeline),
            PageHandler(status=status, journal=journal, renderer=PageRenderer()),
            ConsistencyHandler(
                token=token, check=ConsistencyCheck(journal=journal, store=store, repository=repository)
            ),
            StatusHandler(token=token, status=status, gate=gate, sweep=sweep),
            HealthHandler(
                checks=checks,
                warnings=warnings,
                status=status,
                metrics=metrics,
            ),
        )
        app = create_app(route for handler in handlers for route in handler.routes())
        yield Publisher(app=app, services=tuple(services))


async def _repository(
    settings: PublisherSettings, stack: AsyncExitStack, threads: ThreadPoolExecutor, journal: Journal
) -> Repository:
    name = RepositoryName(settings.repository)
    if settings.repository_kind is RepositoryKind.CVMFS_SERVER:
        tool = CvmfsServer(
            repository=name,
            timeouts=ToolTimeouts(
                transaction=settings.cvmfs_transaction_timeout,
                publish=settings.cvmfs_publish_timeout,
                abort=settings.cvmfs_abort_timeout,
            ),
            record_process=journal.works_on,
        )
        return CvmfsServerRepository(
            place=Place(
                name=name,
                mount=settings.cvmfs_mount,
                spool=settings.cvmfs_spool,
                configuration=settings.cvmfs_configuration,
            ),
            layout=settings.layout,
            tool=tool,
            patience=settings.cvmfs_publish_timeout,
            threads=threads,
        )
    if settings.repository_kind is RepositoryKind.NATIVE:
        state = settings.state / "native" / name
        native = NativeRepository(
            name=name,
            storage=stack.enter_context(open_storage(settings.directory, state=state)),
            keys=KeyFiles(settings.keys, name),
            state=state,
            layout=settings.layout,
            threads=threads,
        )
        return await stack.enter_async_context(native)
    if settings.directory is None:
        raise SettingsError("PUBLISHER_DIRECTORY is not set, and the repository is of kind directory")
    repository = DirectoryRepository(name=name, root=settings.directory, layout=settings.layout, threads=threads)
    return await stack.enter_async_context(repository)
