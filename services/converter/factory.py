"""Builds the converter from its settings: every object, once, by keyword arguments."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from services.common.only_process import only_process
from services.converter.app import create_app
from services.converter.hints.factory import open_hints
from services.converter.hints.journal import HintJournal
from services.converter.metrics import Metrics
from services.converter.notifications import Notifications
from services.converter.provenance.verifier import Verifier
from services.converter.rounds.publishers import Publishers
from services.converter.rounds.rounds import Rounds
from services.converter.rounds.verification import PolicyVerification
from services.converter.settings import ConverterSettings
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

    rounds: Rounds
    hints: HintJournal
    app: web.Application


@asynccontextmanager
async def build_converter(settings: ConverterSettings, options: RegistryOptions) -> AsyncIterator[Converter]:
    """Build everything; it is closed at the end of the context.

    Raises
    ------
    SettingsError
        A setting is missing.
    StateInUseError
        Another converter has the same state.
    SuiteError
        The state, or a file that a setting names, cannot be used.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(only_process(settings.state, setting=settings.variable("state")))
        metrics = Metrics()
        state = await stack.enter_async_context(State(settings.state / "state.sqlite"))
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
            open_hints(settings, state=settings.state, matcher=rounds.plan, metrics=metrics.registry)
        )
        app = create_app(state=state, rounds=rounds, metrics=metrics, routes=hints.routes)
        yield Converter(rounds=rounds, hints=hints.journal, app=app)
