"""Everything that keeps repositories up to date, put together: for ever, or once."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from services.converter.metrics import Metrics
from services.converter.notifications import Notifications
from services.converter.retention.decisions import Ceiling
from services.converter.retention.remover import Remover, RetentionResult
from services.converter.rounds.asking import Asker, Verification
from services.converter.rounds.following import Follower
from services.converter.rounds.outcomes import Outcomes
from services.converter.rounds.plan import Plan
from services.converter.rounds.poller import Poller
from services.converter.rounds.publishers import Publishers
from services.converter.rounds.records import Records
from services.converter.rounds.scheduler import Hints, Lists, Scheduler
from services.converter.rounds.settings import RoundsSettings
from services.converter.rounds.waiting import Backoff, DueWork
from services.converter.state.state import State
from services.converter.thin.pusher import ThinPusher
from services.registry.client import RegistryClient

__all__ = ["OnceResult", "Rounds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnceResult:
    """What one round came to."""

    problems: Sequence[str]
    """Wish lists that could not be read whole, and wishes that could not be polled, or not wholly."""
    not_asked: int
    """Images that no publisher could be asked for."""
    not_published: int
    """Images that a publisher could not publish."""
    not_pushed: int
    """Thin images that could not be pushed."""
    retention: RetentionResult

    @property
    def is_success(self) -> bool:
        """Whether everything is as the wish lists say."""
        failed = self.not_asked + self.not_published + self.not_pushed + self.retention.failed
        return not (self.problems or failed or self.retention.withheld)


class Rounds:
    """Polls, asks, follows, pushes and removes.

    Parameters
    ----------
    settings
        How often, and how much.
    state, publishers, metrics, notifications
        What it works with.
    registry
        Where images are looked for, and thin ones go.
    lists
        Where wishes come from.
    verification
        Comes before an image is asked for.
    """

    def __init__(
        self,
        *,
        settings: RoundsSettings,
        state: State,
        registry: RegistryClient,
        publishers: Publishers,
        metrics: Metrics,
        notifications: Notifications,
        lists: Lists,
        verification: Verification,
    ) -> None:
        self._settings = settings
        self._state = state
        self._metrics = metrics
        self._begun = False
        self.plan = Plan()
        to_ask, to_follow, to_push = asyncio.Event(), asyncio.Event(), asyncio.Event()
        backoff = Backoff(first=settings.retry_first, last=settings.retry_last)
        outcomes = Outcomes(
            state=state,
            plan=self.plan,
            publishers=publishers,
            metrics=metrics,
            notifications=notifications,
            thin_wanted=to_push.set,
        )
        self._follower = Follower(
            state=state,
            publishers=publishers,
            published=outcomes.published,
            failed=outcomes.failed,
            wanted=to_ask.set,
            more=to_follow,
        )
        self._asker = Asker(
            state=state,
            plan=self.plan,
            publishers=publishers,
            verification=verification,
            backoff=backoff,
            published=outcomes.published,
            asked=outcomes.asked,
            follow=to_follow.set,
            dry_run=settings.dry_run,
        )
        self._asking = DueWork(drain=self._asker.drain, next_due=state.copies.next_due, clock=state.clock, more=to_ask)
        self._pusher = ThinPusher(
            state=state, registry=registry, backoff=backoff, pushed=outcomes.pushed, dry_run=settings.dry_run
        )
        self._pushing = DueWork(drain=self._pusher.drain, next_due=state.thin.next_due, clock=state.clock, more=to_push)
        self.remover = Remover(
            state=state,
            plan=self.plan,
            publishers=publishers,
            ceiling=Ceiling(count=settings.removals, share=settings.removal_share),
            removed=outcomes.removed,
            metrics=metrics,
            dry_run=settings.dry_run,
        )
        self._records = Records(state=state, publishers=publishers)
        self._scheduler = Scheduler(
            state=state,
            plan=self.plan,
            poller=Poller(registry=registry, state=state, plan=self.plan, records=self._records),
            records=self._records,
            metrics=metrics,
            lists=lists,
            interval=settings.interval,
            reread=settings.reread,
            backoff=backoff,
            wanted=to_ask.set,
        )

    async def __aenter__(self) -> Self:
        """Read the wish lists."""
        await self._scheduler.read()
        return self

    async def __aexit__(self, *_failure: object) -> None:
        if self._begun:
            await self._records.flush()
            await self._state.clock.save()

    @property
    def works(self) -> bool:
        """Whether this converter works, or stands by."""
        return self._begun

    async def stand_by(self) -> None:
        """Know what is wished until cancelled, and do nothing: another converter has the turn."""
        await self._scheduler.stand_by()

    async def begin(self) -> None:
        """Take what the lists say, and go on where the converter was that had its turn before.

        Raises
        ------
        StateError
            The state failed.
        """
        await self._state.begin()
        self._begun = True
        self._metrics.works.set(1)
        await self._scheduler.refresh()

    async def run(self, hints: Hints | None) -> None:
        """Keep everything up to date until cancelled, after `begin`; raises `StateError`."""
        async with asyncio.TaskGroup() as group:
            works = (self._scheduler.run, self._records.run, self._asking.run, self._follower.run, self._pushing.run)
            for work in works:
                group.create_task(work())
            if hints is not None:
                group.create_task(self._scheduler.follow(hints))
            group.create_task(self._retention())

    async def once(self) -> OnceResult:
        """Look at everything once, and see it through, after `begin`; raises `StateError`."""
        problems = [f"{source}: the wish list cannot be read whole" for source in sorted(self.plan.incomplete)]
        problems += await self._scheduler.once()
        not_asked = await self._asker.drain()
        not_published = 0 if self._settings.dry_run else await self._follower.settle()
        not_pushed = await self._pusher.drain()
        return OnceResult(
            problems=problems,
            not_asked=not_asked,
            not_published=not_published,
            not_pushed=not_pushed,
            retention=await self.remover.run(),
        )

    async def _retention(self) -> None:
        while True:
            await asyncio.sleep(self._settings.retention_interval)
            await self.remover.run()
