"""Builds the publisher from its settings: every object, once, by keyword arguments."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from aiohttp import web

from services.common.archive.limits import ArchiveLimits
from services.common.database.interface import Database
from services.common.lock_file import LOCK_FILE, locked
from services.common.object_store.settings import ObjectStoreSettings
from services.common.object_store.store import ObjectStore
from services.common.repository_name import RepositoryName
from services.common.settings import SettingsError
from services.publisher.app import create_app
from services.publisher.handlers.health import Health
from services.publisher.journal.journal import Journal
from services.publisher.journal.sqlite import SqliteDatabase
from services.publisher.leadership import Leadership
from services.publisher.metrics import Metrics
from services.publisher.pipeline.trust import TrustWatch
from services.publisher.projects import Projects
from services.publisher.routes import build_routes
from services.publisher.settings import PublisherSettings, RepositoryKind
from services.publisher.work import Resources, Work, build_work
from services.registry.client import RegistryClient
from services.registry.options import RegistryOptions
from services.repository.cvmfs_server.place import Place
from services.repository.cvmfs_server.repository import CvmfsServerRepository
from services.repository.cvmfs_server.tool import CvmfsServer, ToolTimeouts
from services.repository.directory.repository import DirectoryRepository
from services.repository.interface import Repository
from services.repository.native.repository import NativeRepository
from services.repository.native.storage.place import open_storage
from services.repository.native.trust.keeper import WhitelistKeeper
from services.repository.native.trust.keyring import KeyFiles

__all__ = ["Publisher", "build_publisher"]

_Service = Callable[[], Coroutine[Any, Any, None]]

_MORE_THREADS: Final = 2
"""Threads besides those that write archives and those that prepare layers from them meanwhile, so that publishing and
look-ups never wait."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """What runs: the HTTP application and the services behind it."""

    app: web.Application
    services: tuple[_Service, ...]
    """Each runs until it is cancelled. One of them waits for this publisher's turn to lead, and does what that is."""


@asynccontextmanager
async def build_publisher(
    settings: PublisherSettings,
    store_settings: ObjectStoreSettings,
    limits: ArchiveLimits,
    registry_options: RegistryOptions,
) -> AsyncIterator[Publisher]:
    """Build everything; it is closed at the end of the context.

    Raises
    ------
    SettingsError
        A setting is missing.
    LockError
        Another publisher has the same state.
    PublisherError
        The journal or the repository cannot be used.
    """
    async with AsyncExitStack() as stack:
        settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        stack.enter_context(
            locked(settings.state / LOCK_FILE, otherwise=f"another publisher has the state {settings.state}")
        )
        journal = await stack.enter_async_context(Journal(_database(settings), alone=not _is_shared(settings)))
        store = await stack.enter_async_context(ObjectStore(settings=store_settings))
        registries = await stack.enter_async_context(RegistryClient(options=registry_options))
        threads = ThreadPoolExecutor(2 * settings.fetch_concurrency + _MORE_THREADS, "publisher")
        stack.callback(threads.shutdown)
        repository = await _repository(settings, stack, threads, journal)
        leadership = Leadership(_turn(settings))

        def leads() -> bool:
            return leadership.leads

        health = Health(
            checks={"journal": journal.check, "store": store.check, "repository": repository.check}, leads=leads
        )
        trust = _trust(repository, threads, health, leads)
        directories = {"spool": settings.spool, "state": settings.state}
        if isinstance(repository, CvmfsServerRepository):
            directories |= repository.directories()
        resources = Resources(
            settings=settings,
            limits=limits,
            journal=journal,
            store=store,
            repository=repository,
            registries=registries,
            threads=threads,
            metrics=Metrics(),
            directories=directories,
            leads=leads,
        )
        projects = Projects(settings.projects)
        await projects.load()
        health.warnings["projects"] = projects.warning
        work = build_work(resources)
        await stack.enter_async_context(work.membership)
        routes = build_routes(
            resources, work, bucket=store_settings.bucket, health=health, trust=trust, projects=projects
        )
        yield Publisher(app=create_app(routes), services=tuple(_services(settings, work, leadership, trust)))


def _services(
    settings: PublisherSettings, work: Work, leadership: Leadership, trust: WhitelistKeeper | TrustWatch | None
) -> Iterator[_Service]:
    yield work.membership.run
    yield work.sweep.run
    if settings.database is not None:
        yield work.lookout.run
    leading = (work.sweep.begin, work.collector.run, work.checks.run)
    if _is_shared(settings):
        yield work.pipeline.run
        yield partial(leadership.run, leading)
    else:
        yield partial(leadership.run, (work.pipeline.run, *leading))
    if trust is not None:
        yield trust.run


def _is_shared(settings: PublisherSettings) -> bool:
    """Tell whether all publishers of the journal publish, and not only the one that leads: to a bucket they can."""
    in_bucket = settings.repository_kind is RepositoryKind.NATIVE and settings.directory is None
    return in_bucket and settings.database is not None


def _turn(settings: PublisherSettings) -> Callable[[], AbstractAsyncContextManager[None]]:
    """Return what waits for this publisher's turn; nothing does where the lock of its state keeps others out."""
    if settings.database is None:
        return nullcontext
    from services.publisher.journal.tenure import Tenure  # noqa: PLC0415 - takes a tenth of a second

    lease = timedelta(seconds=settings.lease_seconds)
    return Tenure(settings.database, password=settings.database_password, silence=lease).held


def _database(settings: PublisherSettings) -> Database:
    if settings.database is None:
        return SqliteDatabase(settings.journal_file)
    from services.publisher.journal.postgresql import PostgresqlDatabase  # noqa: PLC0415 - takes a tenth of a second

    return PostgresqlDatabase(settings.database, password=settings.database_password, lease=settings.lease_seconds)


def _trust(
    repository: Repository, threads: ThreadPoolExecutor, health: Health, leads: Callable[[], bool]
) -> WhitelistKeeper | TrustWatch | None:
    """Give who looks for how long clients trust the repository; None if for ever."""
    if isinstance(repository, NativeRepository):
        keeper = WhitelistKeeper(whitelist=repository.whitelist, threads=threads, leads=leads)
        health.checks["whitelist"], health.warnings["whitelist"] = keeper.check, keeper.warning
        return keeper
    return TrustWatch(repository) if isinstance(repository, CvmfsServerRepository) else None


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
            seen=await journal.highest_revision(),
        )
        return await stack.enter_async_context(native)
    if settings.directory is None:
        raise SettingsError("PUBLISHER_DIRECTORY is not set, and the repository is of kind directory")
    repository = DirectoryRepository(name=name, root=settings.directory, layout=settings.layout, threads=threads)
    await stack.enter_async_context(repository)
    if settings.database is None:
        repository.take()  # with nobody's turn to wait for, whoever has it is told at once
    return repository
