"""Builds what takes hints, from its settings."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry

from services.converter.hints.endpoints import Endpoints
from services.converter.hints.handler import HintsHandler, Matcher
from services.converter.hints.metrics import HintMetrics
from services.converter.hints.recorder import PromptRecorder, Recorder
from services.converter.hints.settings import HintsSettings
from services.converter.model import Hint

__all__ = ["Hints", "Journal", "open_hints"]


class Journal(Recorder, Protocol):
    """Records hints and gives them out; `HintJournal` and `SharedHintJournal` are such."""

    @property
    def pending(self) -> int:
        """How many hints wait, those given out among them."""

    async def next(self) -> Hint:
        """Give out the hint that has waited longest; wait until there is one."""

    async def done(self, hint: Hint) -> None:
        """Say that what follows from a hint that was given out has been done."""


@dataclass(frozen=True, slots=True)
class Hints:
    """What takes hints, and gives them out."""

    journal: Journal
    """Gives them out (`next`, `done`)."""
    routes: tuple[web.RouteDef, ...]
    """Routes of the requests that bring them; none where nobody may. Serve them without an access log: some senders
    have their secret in the address."""


@asynccontextmanager
async def open_hints(
    settings: HintsSettings,
    *,
    journal: AbstractAsyncContextManager[Journal],
    matcher: Matcher,
    metrics: CollectorRegistry,
) -> AsyncIterator[Hints]:
    """Open the journal and build the handler; the journal is closed at the end of the context.

    Parameters
    ----------
    settings
        The settings.
    journal
        Where hints are recorded.
    matcher
        Knows what is wished.
    metrics
        Where hints are counted.

    Raises
    ------
    EndpointsError
        There is a mistake in the file of endpoints.
    HintJournalError
        The journal cannot be opened.
    """
    async with journal as opened:
        if settings.hints_endpoints is None:
            yield Hints(opened, ())
            return
        endpoints = Endpoints(settings.hints_endpoints)
        await endpoints.current()
        counted = HintMetrics(metrics)
        counted.pending.set_function(lambda: opened.pending)
        handler = HintsHandler(
            endpoints=endpoints,
            recorder=PromptRecorder(opened, patience=settings.hints_patience),
            matcher=matcher,
            metrics=counted,
            limit=settings.hints_body_limit,
        )
        yield Hints(opened, tuple(handler.routes()))
