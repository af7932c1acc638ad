"""Builds the converter from its settings: every object, once, by keyword arguments."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from services.common.only_process import only_process
from services.converter.app import create_app
from services.converter.hints.factory import Journal, open_hints
from services.converter.hints.journal import HintJournal
from services.converter.metrics import Metrics
from services.converter.notifications import Notifications
from services.converter.provenance.verifier import Verifier
from services.converter.rounds.publishers import Publishers
from services.converter.rounds.rounds import Rounds
from services.converter.rounds.verification import PolicyVerification
from services.converter.settings import ConverterSettings
from services.converter.state.database import StateDatabase
from services.converter.state.sqlite import SqliteState
from services.converter.state.state import State
from services.converter.wishlist.sources.download import Downloader
from services.converter.wishlist.sources.kept import KeptLists
from services.converter.wishlist.sources.lists import WishLists
from services.registry.client import RegistryClient
from services.registry.options import RegistryOptions

__all__ = ["Converter", "build_converter"]


@dataclass(frozen=True, slots=True)
class Converter:
    """What runs."""

    state: State
    rounds: Rounds
    hints: Journal
    app: web.Application


@asynccontextmanager
async def build_converter(settings: ConverterSettings, options: RegistryOptions) -> AsyncIterator[Converter]:
    """Build everything; it is closed at the end of the context.

    Raises
    ------
    SettingsError
        A setting is missing.
    StateInUseError
        Another converter has the same directory.
    SuiteError
        The state, or a file that a setting names, cannot be used.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(only_process(settings.state, setting=settings.variable("state")))
        metrics = Metrics()
        state = await stack.enter_async_context(State(_database(settings)))
        places = settings.publisher_places()
        publishers = await stack.enter_async_context(Publishers(places=places, state=state))
        registry = await stack.enter_async_context(RegistryClient(options=options))
        notifications = await stack.enter_async_context(Notifications(settings.notifications))
        downloader = await stack.enter_async_context(
            Downloader.opened(
                patience=settings.wish_lists_timeout,
                ca_file=settings.wish_lists_ca_file,
                credentials=settings.wish_lists_credentials,
            )
        )
        lists = WishLists(
            places=settings.places,
            kept=KeptLists(settings.state / "wish-lists"),
            downloader=downloader,
            recipe_outputs=settings.recipe_outputs,
        )
        rounds = await stack.enter_async_context(
            Rounds(
                settings=settings,
                state=state,
                registry=registry,
                publishers=publishers,
                metrics=metrics,
                notifications=notifications,
                lists=lists,
                verification=PolicyVerification(client=registry, verifier=Verifier(), metrics=metrics),
            )
        )
        hints = await stack.enter_async_context(
            open_hints(settings, journal=_journal(settings, state), matcher=rounds.plan, metrics=metrics.registry)
        )
        app = create_app(state=state, rounds=rounds, metrics=metrics, routes=hints.routes)
        yield Converter(state=state, rounds=rounds, hints=hints.journal, app=app)


def _database(settings: ConverterSettings) -> StateDatabase:
    if settings.database is None:
        return SqliteState(settings.state / "state.sqlite")
    from services.converter.state.postgresql import PostgresqlState  # noqa: PLC0415 - takes a tenth of a second

    return PostgresqlState(settings.database, password=settings.database_password)


def _journal(settings: ConverterSettings, state: State) -> AbstractAsyncContextManager[Journal]:
    if settings.database is None:
        return HintJournal(settings.state / "hints.sqlite", limit=settings.hints_pending)
    from services.converter.hints.shared import SharedHintJournal  # noqa: PLC0415 - takes a tenth of a second

    return SharedHintJournal(
        settings.database,
        password=settings.database_password,
        state=state.database,
        limit=settings.hints_pending,
    )
