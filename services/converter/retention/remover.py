"""Has removed what is due to be, and no more than a run may remove."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from services.common.publisher_api import NotKnownError, PublisherApiError
from services.converter.metrics import Metrics
from services.converter.retention.decisions import Ceiling, Removal, removals
from services.converter.rounds.plan import Plan
from services.converter.rounds.publishers import Publishers
from services.converter.state.model import Removable
from services.converter.state.state import State

__all__ = ["Remover", "RetentionResult"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionResult:
    """What a run came to."""

    due: Sequence[Removal]
    """What is to be removed."""
    removed: int
    failed: int
    withheld: bool
    """Whether nothing was removed, as it would have been more than a run may remove."""


class Remover:
    """Removes images that nobody wishes any more, or that are gone.

    Parameters
    ----------
    state
        What is known of them.
    plan
        What is wished.
    publishers
        Remove them; they can be brought back there until they are collected.
    ceiling
        How much a run may remove.
    removed
        Told of each that was.
    metrics
        Tell where nothing was, since it would have been too much.
    dry_run
        Whether nothing is removed but in the log.
    """

    def __init__(
        self,
        *,
        state: State,
        plan: Plan,
        publishers: Publishers,
        ceiling: Ceiling,
        removed: Callable[[Removal], Awaitable[None]],
        metrics: Metrics,
        dry_run: bool,
    ) -> None:
        self._state = state
        self._plan = plan
        self._publishers = publishers
        self._ceiling = ceiling
        self._removed = removed
        self._metrics = metrics
        self._dry_run = dry_run

    async def due(self) -> Sequence[Removal]:
        """Return what is to be removed now; raises `StateError`."""
        candidates = await self._state.copies.removable()
        return removals(candidates, now=self._state.clock.steady(), is_wished=self._is_wished)

    async def run(self) -> RetentionResult:
        """Have removed what is due.

        Raises
        ------
        StateError
            The state failed.
        """
        due = await self.due()
        most = self._ceiling.of(await self._state.copies.count())
        for each in due:
            _log.info("image is due to be removed", image=each.name, repository=each.repository, why=each.why)
        withheld = len(due) > most
        self._metrics.withheld.set(len(due) if withheld else 0)
        if withheld:
            _log.error(
                "nothing is removed, since more is due than a run may remove: look at the list above, and if it is "
                "right, set CONVERTER_REMOVALS or CONVERTER_REMOVAL_SHARE higher for one run",
                due=len(due),
                most=most,
            )
            return RetentionResult(due=due, removed=0, failed=0, withheld=True)
        if self._dry_run:
            return RetentionResult(due=due, removed=0, failed=0, withheld=False)
        outcomes = [await self._remove(each) for each in due]
        return RetentionResult(due=due, removed=sum(outcomes), failed=len(due) - sum(outcomes), withheld=False)

    async def _remove(self, removal: Removal) -> bool:
        log = _log.bind(image=removal.name, repository=removal.repository)
        api = self._publishers.get(removal.repository)
        if api is None:
            log.warning("image cannot be removed", reason="no publisher is set for the repository")
            return False
        # One that has lost its turn may not know that the image is wished again.
        await self._state.database.confirm()
        try:
            await api.images.remove(removal.name)
        except NotKnownError:
            log.info("image was removed already")
        except PublisherApiError as error:
            log.warning("image cannot be removed", reason=str(error))
            return False
        # A kill before this has the publisher asked once more, which changes nothing.
        await self._state.copies.removed(removal.name, removal.repository)
        await self._removed(removal)
        log.warning("image removed", why=removal.why)
        return True

    def _is_wished(self, copy: Removable) -> bool:
        """Whether a wish may want a dropped copy: nothing is removed before all have been read and asked that might."""
        if self._plan.incomplete or not self._plan.whole:
            return True
        for planned in self._plan.naming(copy.name):
            if copy.name in planned.images and copy.repository in planned.wish.repositories:
                return True
            if planned.polled is None or copy.dropped is None or planned.polled <= copy.dropped:
                return True
        return False
