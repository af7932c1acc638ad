"""Builds what takes hints, from its settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry

from services.converter.hints.endpoints import Endpoints
from services.converter.hints.handler import HintsHandler, Matcher
from services.converter.hints.journal import HintJournal
from services.converter.hints.metrics import HintMetrics
from services.converter.hints.recorder import PromptRecorder
from services.converter.hints.settings import HintsSettings

__all__ = ["Hints", "open_hints"]


@dataclass(frozen=True, slots=True)
class Hints:
    """What takes hints, and gives them out."""

    journal: HintJournal
    """Gives them out (`next`, `done`)."""
    routes: tuple[web.RouteDef, ...]
    """Routes of the requests that bring them; none where nobody may. Serve them without an access log: some senders
    have their secret in the address."""


@asynccontextmanager
async def open_hints(
    settings: HintsSettings, *, state: Path, matcher: Matcher, metrics: CollectorRegistry
) -> AsyncIterator[Hints]:
    """Open the journal and build the handler; the journal is closed at the end of the context.

    Parameters
    ----------
    settings
        The settings.
    state
        Directory of the converter's state, where the journal is `hints.sqlite`.
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
    async with HintJournal(state / "hints.sqlite", limit=settings.hints_pending) as journal:
        if settings.hints_endpoints is None:
            yield Hints(journal, ())
            return
        endpoints = Endpoints(settings.hints_endpoints)
        await endpoints.current()
        counted = HintMetrics(metrics)
        counted.pending.set_function(lambda: journal.pending)
        handler = HintsHandler(
            endpoints=endpoints,
            recorder=PromptRecorder(journal, patience=settings.hints_patience),
            matcher=matcher,
            metrics=counted,
            limit=settings.hints_body_limit,
        )
        yield Hints(journal, tuple(handler.routes()))
