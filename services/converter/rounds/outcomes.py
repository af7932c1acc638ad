"""What follows when something was published, failed, pushed or removed: records, log, metrics, notifications."""

from collections.abc import Callable, Sequence

import structlog

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.publisher_api import PublisherApiError
from services.common.repository_name import RepositoryName
from services.converter.metrics import Metrics
from services.converter.notifications import Notifications
from services.converter.retention.decisions import Removal
from services.converter.rounds.plan import Plan
from services.converter.rounds.publishers import Publishers
from services.converter.state.model import Copy, ThinRecord
from services.converter.state.state import State
from services.converter.thin.wanted import want_thin_images

__all__ = ["Outcomes"]

_log = structlog.get_logger(__name__)


class Outcomes:
    """Takes what happened.

    Parameters
    ----------
    state
        Remembers it.
    plan
        Says which thin images follow.
    publishers
        Say what it took.
    metrics, notifications
        Tell others.
    thin_wanted
        Called when thin images are to be pushed.
    """

    def __init__(
        self,
        *,
        state: State,
        plan: Plan,
        publishers: Publishers,
        metrics: Metrics,
        notifications: Notifications,
        thin_wanted: Callable[[], None],
    ) -> None:
        self._state = state
        self._plan = plan
        self._publishers = publishers
        self._metrics = metrics
        self._notifications = notifications
        self._thin_wanted = thin_wanted

    async def published(self, copies: Sequence[Copy]) -> None:
        """Take copies that are published; raises `StateError`."""
        thin = 0
        for copy in copies:
            # Before it counts as published: a kill in between has this done once more.
            thin += await want_thin_images(copy, plan=self._plan, state=self._state)
        news = await self._state.copies.published(copies)
        if thin:
            self._thin_wanted()
        for copy in news:
            if copy.published != copy.wanted:
                await self._tell(copy)

    async def _tell(self, copy: Copy) -> None:
        _log.info("image published", image=copy.name, repository=copy.repository, digest=copy.wanted)
        self._metrics.published.labels(copy.repository).inc()
        self._metrics.publish_seconds.observe(max(0.0, self._state.clock.now() - copy.wanted_at))
        api = self._publishers.get(copy.repository)
        try:
            image = None if api is None else await api.images.image(copy.name)
        except PublisherApiError as error:
            _log.info("publisher does not say what an image took", image=copy.name, reason=str(error))
            return
        if image is not None:
            self._metrics.fetched_bytes.labels(copy.repository).inc(max(0, image.bytes_fetched))
            self._metrics.saved_bytes.labels(copy.repository).inc(max(0, image.bytes_known))
            await self._notifications.published(image, copy.wanted)

    async def failed(self, repository: RepositoryName, reasons: dict[ImageName, str]) -> None:
        """Take copies that a publisher could not publish; raises `StateError`."""
        for name in await self._state.copies.failed(repository, reasons):
            _log.warning("image failed", image=name, repository=repository, reason=reasons[name])
            self._metrics.failures.labels(name.registry, "publishing").inc()
            await self._notifications.failed(name, None, reasons[name])

    async def asked(self, copy: Copy) -> None:
        """Take a copy that a publisher was asked for."""
        await self._notifications.asked(copy.name, copy.wanted)

    async def pushed(self, _record: ThinRecord, _digest: Digest) -> None:
        """Take a thin image that was pushed."""
        self._metrics.thin_images.inc()

    async def removed(self, removal: Removal) -> None:
        """Take a copy that was removed."""
        self._metrics.removed.labels(removal.repository).inc()
