"""Builds what answers requests: the routes of all handlers."""

from collections.abc import Iterator

from aiohttp import web

from services.publisher.handlers.access import Access
from services.publisher.handlers.collection import CollectionHandler
from services.publisher.handlers.consistency import ConsistencyHandler
from services.publisher.handlers.events import EventsHandler
from services.publisher.handlers.health import Health, HealthHandler
from services.publisher.handlers.image_page import ImagePageHandler
from services.publisher.handlers.images import ImagesHandler
from services.publisher.handlers.layers import LayersHandler
from services.publisher.handlers.page import PageHandler
from services.publisher.handlers.status import StatusHandler
from services.publisher.handlers.token import TokenCheck
from services.publisher.notification.recorder import Recorder
from services.publisher.page.renderer import PageRenderer
from services.publisher.projects import Projects
from services.publisher.status.reader import StatusReader, Trust
from services.publisher.work import Resources, Work

__all__ = ["build_routes"]


def build_routes(
    resources: Resources, work: Work, *, bucket: str, health: Health, trust: Trust | None, projects: Projects
) -> Iterator[web.RouteDef]:
    """Build the handlers; give their routes.

    Parameters
    ----------
    bucket
        Name of the one whose notifications are taken.
    health
        What is asked whether the publisher is ready.
    trust
        None where clients trust the repository for ever.
    projects
        Who may change images besides whoever has the token.
    """
    settings, journal, metrics = resources.settings, resources.journal, resources.metrics
    token = TokenCheck(settings.event_token)
    status = StatusReader(
        repository=resources.repository.name,
        journal=journal,
        leads=resources.leads,
        gate=work.gate,
        progress=work.progress,
        checks=work.checks,
        trust=trust,
        spool=work.spool,
        directories=resources.directories,
    )
    renderer = PageRenderer()
    handlers = (
        EventsHandler(
            token=token,
            recorder=Recorder(journal),
            claims=work.claims,
            metrics=metrics,
            bucket=bucket,
            limit=settings.event_limit,
        ),
        LayersHandler(token=token, journal=journal, claims=work.claims),
        ImagesHandler(
            access=Access(token=token, projects=projects),
            images=journal.images,
            publishers=journal.publishers,
            versions=journal.versions,
            flats=journal.flats,
            claims=work.images,
            keep=settings.keep_replaced,
            excuse=resources.registries.excuse,
        ),
        PageHandler(status=status, journal=journal, renderer=renderer),
        ImagePageHandler(status=status, journal=journal, claims=work.images, renderer=renderer),
        CollectionHandler(token=token, collector=work.collector, journal=journal.unnamed),
        ConsistencyHandler(token=token, checks=work.checks),
        StatusHandler(token=token, status=status, gate=work.gate, sweep=work.sweep),
        HealthHandler(health=health, status=status, metrics=metrics),
    )
    for handler in handlers:
        yield from handler.routes()
