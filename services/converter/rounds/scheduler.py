"""When which wish is polled: at spread intervals, later where a registry fails, at once where somebody hints."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from services.common.errors import SuiteError
from services.common.image_name import ImageName
from services.converter.errors import StateError
from services.converter.metrics import Metrics
from services.converter.model import Hint, WishList
from services.converter.rounds.lane import Lane
from services.converter.rounds.plan import Plan, Planned
from services.converter.rounds.poller import Poller, PollResult
from services.converter.rounds.records import Records
from services.converter.rounds.side_by_side import side_by_side
from services.converter.rounds.waiting import Backoff
from services.converter.state.model import Polled
from services.converter.state.state import State
from services.converter.wishlist.selection import image_name
from services.registry.errors import RegistryUnavailableError

__all__ = ["Hints", "Lists", "Scheduler"]

_log = structlog.get_logger(__name__)

_SPREAD: Final = 0.1
"""Part of an interval by which the next poll is earlier or later, so that polls do not go in step."""
_HINTS: Final = 16
"""Hints that are looked into at a time, so that a slow registry holds up no other."""
_AGAIN: Final = 2.0
"""Seconds before a hint is looked into again of which nothing came. CNCF Distribution announces a manifest before it
writes the tag, so that who asks at once may be told of the image before (registry/handlers/manifests.go)."""
_LATER: Final = 1000
"""Most hints that wait for that; of more, one look is all."""
_POLLS: Final = 64
"""Polls at a time of `once`."""


class Lists(Protocol):
    """Where the wish lists are."""

    async def read(self) -> Sequence[WishList]:
        """Return the lists as they are now; of one that cannot be read, the last good version, as not complete."""


class Hints(Protocol):
    """Where hints come from."""

    async def next(self) -> Hint:
        """Give out the hint that has waited longest; wait until there is one."""

    async def done(self, hint: Hint) -> None:
        """Forget a hint that has been looked into."""


class Scheduler:
    """Has wishes polled.

    Parameters
    ----------
    state, plan, poller, records, metrics
        What it works with.
    lists
        Where wishes come from.
    interval
        Seconds between two polls of a wish that says nothing else.
    reread
        Seconds between two readings of the lists.
    backoff
        How long a wish waits whose poll has failed; never longer than its interval.
    wanted
        Called when something is wanted of a publisher.
    """

    def __init__(
        self,
        *,
        state: State,
        plan: Plan,
        poller: Poller,
        records: Records,
        metrics: Metrics,
        lists: Lists,
        interval: float,
        reread: float,
        backoff: Backoff,
        wanted: Callable[[], None],
    ) -> None:
        self._state = state
        self._plan = plan
        self._poller = poller
        self._records = records
        self._metrics = metrics
        self._lists = lists
        self._interval = interval
        self._reread = reread
        self._backoff = backoff
        self._wanted = wanted
        self._random = random.Random()  # noqa: S311 - spreads polls, keeps no secret
        self._fingerprints: dict[str, str] = {}
        self._failures: dict[str, int] = {}
        self._lanes: dict[str, Lane] = {}
        self._group: asyncio.TaskGroup | None = None
        self._begun = False

    async def read(self) -> None:
        """Read the lists, and change nothing by them: who stands by knows what is wished."""
        lists = await self._lists.read()
        self._plan.replace(lists)
        self._metrics.lists_broken.set(sum(not each.complete for each in lists))

    async def stand_by(self) -> None:
        """Read the lists now and then until cancelled."""
        while True:
            await asyncio.sleep(self._reread)
            await self.read()

    async def refresh(self) -> None:
        """Read the lists, and take what has changed; raises `StateError`."""
        former = {planned.key: planned for planned in self._plan.every()}
        await self.read()
        present = {planned.key for planned in self._plan.every()}
        for key in former.keys() - present:
            self._lane(former[key]).drop(key)
        dropped = await self._state.images.dropped_wishes(
            present=present, whole=self._plan.whole, incomplete=self._plan.incomplete
        )
        await self._state.wishes.keep(present)
        if not self._begun:
            self._begun = True
            await self._remember()
        else:
            for planned in self._plan.every():
                before = former.get(planned.key)
                if before is None or before.fingerprint != planned.fingerprint:
                    self._lane(planned).put(planned, self._state.clock.steady())
        if dropped:
            _log.info("images are wished no more", images=len(dropped))
        for planned in {other.key: other for name in dropped for other in self._plan.naming(name)}.values():
            # Another wish may want what this one did not look for as long as it was there.
            self._lane(planned).put(planned, self._state.clock.steady())

    async def _remember(self) -> None:
        """Go on with the times that an earlier process has left."""
        records = await self._state.wishes.every()
        now = self._state.clock.steady()
        for planned in self._plan.every():
            record = records.get(planned.key)
            if record is None:
                self._lane(planned).put(planned, now)
                continue
            self._fingerprints[planned.key] = record.fingerprint
            self._failures[planned.key] = record.failures
            changed = record.fingerprint != planned.fingerprint
            self._lane(planned).put(
                planned, now if changed else min(record.due, now + 1.2 * self._interval_of(planned))
            )

    async def run(self) -> None:
        """Read lists and poll wishes until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for lane in self._lanes.values():
                group.create_task(lane.run())
            while True:
                await asyncio.sleep(self._reread)
                await self.refresh()
                await self._state.clock.save()

    async def once(self) -> list[str]:
        """Poll every wish once; return what went wrong, but for wishes that may fail."""
        problems: list[str] = []

        async def poll(planned: Planned) -> None:
            problem = await self._poll(planned)
            if problem is not None and not planned.wish.may_fail:
                problems.append(f"{planned.wish.origin}: {problem}")

        await side_by_side(list(self._plan.every()), poll, workers=_POLLS)
        await self._records.flush()
        await self._state.clock.save()
        return problems

    async def follow(self, hints: Hints) -> None:
        """Look into hints until cancelled: each has the wishes that it is about polled for its tag alone."""
        slots, later = asyncio.Semaphore(_HINTS), asyncio.Semaphore(_LATER)

        async def look(hint: Hint) -> None:
            matching = self._plan.hinted(hint)
            self._metrics.hints.labels("followed" if matching else "unmatched").inc()
            try:
                is_all = await self._hinted(hint, matching)
            finally:
                slots.release()
            if not is_all and not later.locked():
                async with later:
                    await asyncio.sleep(_AGAIN)
                    await self._hinted(hint, self._plan.hinted(hint))
            await hints.done(hint)

        async with asyncio.TaskGroup() as group:
            while True:
                await slots.acquire()
                group.create_task(look(await hints.next()))

    async def _hinted(self, hint: Hint, matching: Sequence[Planned]) -> bool:
        """Do what follows from a hint; return whether that is all, or there may be more when the registry is ready."""
        if hint.signed is not None:
            self._hurried(await self._state.copies.signed([planned.key for planned in matching], hint.signed))
            return not matching
        if hint.tag is None:
            for planned in matching:
                self._lane(planned).put(planned, self._state.clock.steady())
            return True
        tag = hint.tag
        return all([await self._look(planned, tag) for planned in matching])

    async def _look(self, planned: Planned, tag: str) -> bool:
        """Poll a wish for a tag, and return whether something came of it.

        A failure leaves it to the next poll, which is earlier for it.
        """
        try:
            result = await self._poller.poll(planned, only=tag)
        except StateError:
            raise
        except SuiteError as error:
            _log.warning("hint could not be looked into", wish=str(planned.wish.origin), tag=tag, reason=str(error))
            self._lane(planned).put(planned, self._state.clock.steady() + self._backoff.pause(0))
            return True
        self._count(planned, result)
        return self._hurried(await self._state.copies.hinted(image_name(planned.wish, tag))) or bool(result.changed)

    def _hurried(self, names: Sequence[ImageName]) -> bool:
        """See to it that images are asked for that waited for another try; return whether there are any."""
        if names:
            _log.info("images are tried again, since there is a hint about them", images=names)
            self._wanted()
        return bool(names)

    async def _polled(self, planned: Planned) -> None:
        await self._poll(planned)

    async def _poll(self, planned: Planned) -> str | None:
        """Poll a wish and decide when it is polled next; return what went wrong."""
        anew = self._fingerprints.get(planned.key, planned.fingerprint) != planned.fingerprint
        try:
            result = await self._poller.poll(planned, anew=anew)
        except StateError:
            raise
        except SuiteError as error:
            await self._failed(planned, error)
            return str(error)
        self._count(planned, result)
        self._failures.pop(planned.key, None)
        self._fingerprints[planned.key] = planned.fingerprint
        due = self._state.clock.steady() + self._spread(self._interval_of(planned))
        reason = next(iter(result.troubles.values()), None)
        await self._records.polled(
            planned.key,
            Polled(fingerprint=planned.fingerprint, due=due, polled_at=self._state.clock.now(), reason=reason),
        )
        self._requeue(planned, due)
        return reason

    async def _failed(self, planned: Planned, error: SuiteError) -> None:
        failures = self._failures.get(planned.key, 0)
        self._failures[planned.key] = failures + 1
        pause = min(self._backoff.pause(failures), self._interval_of(planned))
        if isinstance(error, RegistryUnavailableError) and error.retry_after is not None:
            pause = max(pause, error.retry_after)
        due = self._state.clock.steady() + self._spread(pause)
        registry = planned.wish.registry
        _log.warning(
            "wish cannot be polled", wish=str(planned.wish.origin), registry=registry, reason=str(error), again_in=pause
        )
        self._metrics.polls.labels(registry, "failed").inc()
        self._metrics.failures.labels(registry, "polling").inc()
        await self._state.wishes.failed(planned.key, reason=str(error), due=due)
        self._requeue(planned, due)

    def _count(self, planned: Planned, result: PollResult) -> None:
        registry = planned.wish.registry
        self._metrics.polls.labels(registry, "done").inc()
        self._metrics.asked.labels(registry).inc(result.asked)
        if result.changed:
            self._metrics.changed.labels(registry).inc(result.changed)
            _log.info("images changed", wish=str(planned.wish.origin), images=result.changed)
            self._wanted()
        for name, reason in result.troubles.items():
            self._metrics.failures.labels(registry, "image").inc()
            _log.warning("image cannot be looked for", image=name, reason=reason)

    def _requeue(self, planned: Planned, due: float) -> None:
        current = self._plan.get(planned.key)
        if current is not None:  # it may have been dropped meanwhile, or be another one with the same name
            self._lane(current).put(current, due)

    def _interval_of(self, planned: Planned) -> float:
        return self._interval if planned.wish.interval is None else planned.wish.interval

    def _spread(self, seconds: float) -> float:
        return seconds * self._random.uniform(1 - _SPREAD, 1 + _SPREAD)

    def _lane(self, planned: Planned) -> Lane:
        registry = planned.reference.authority.lower()
        lane = self._lanes.get(registry)
        if lane is None:
            lane = self._lanes[registry] = Lane(clock=self._state.clock, poll=self._polled)
            if self._group is not None:
                self._group.create_task(lane.run())
        return lane
