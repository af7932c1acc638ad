"""Asks the publishers for what is wanted, once it is verified; each image on its own, and again when that fails."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

import structlog
from pydantic import JsonValue

from services.common.digest import Digest
from services.common.errors import SuiteError
from services.common.image_name import ImageName
from services.common.publisher_api import ImageRequest, PublisherApi
from services.converter.model import SignaturePolicy, Wish
from services.converter.rounds.plan import Plan, Planned
from services.converter.rounds.publishers import Publishers
from services.converter.rounds.side_by_side import failures
from services.converter.rounds.waiting import Backoff
from services.converter.state.model import Copy
from services.converter.state.state import State
from services.registry.reference import ImageReference

__all__ = ["Asker", "Verification"]

_log = structlog.get_logger(__name__)

_AT_ONCE: Final = 200
"""Copies that are read from the state at a time."""
_PRIORITY: Final = 1000
"""The highest one that publishers take."""


class Verification(Protocol):
    """Says who has signed an image."""

    async def verify(
        self, name: ImageName, reference: ImageReference, wishes: Sequence[Wish], policies: Sequence[SignaturePolicy]
    ) -> dict[str, JsonValue] | None:
        """Return what was verified of the image with the reference's digest; None where no policy applies.

        Raises
        ------
        SuiteError
            A policy is not satisfied, or it cannot be told whether it is: the image is not to be published.
        """


class Asker:
    """Takes copies from `wanted` to `asked`, or to `published` where the publisher has them already.

    Parameters
    ----------
    state
        What is wanted.
    plan
        Says how.
    publishers
        Are asked.
    verification
        Comes before.
    backoff
        How long is waited after failures.
    published
        Told of copies that were published already.
    asked
        Told of copies that a publisher works on now.
    follow
        Told that there is something to follow.
    dry_run
        Whether nothing is asked for but in the log.
    """

    def __init__(
        self,
        *,
        state: State,
        plan: Plan,
        publishers: Publishers,
        verification: Verification,
        backoff: Backoff,
        published: Callable[[Sequence[Copy]], Awaitable[None]],
        asked: Callable[[Copy], Awaitable[None]],
        follow: Callable[[], None],
        dry_run: bool,
    ) -> None:
        self._state = state
        self._plan = plan
        self._publishers = publishers
        self._verification = verification
        self._backoff = backoff
        self._published = published
        self._asked = asked
        self._follow = follow
        self._dry_run = dry_run

    async def drain(self) -> int:
        """Ask for all that is due; return how many failed.

        Raises
        ------
        StateError
            The state failed.
        """
        failed = 0
        while copies := await self._state.copies.due(_AT_ONCE):
            if self._dry_run:
                for copy in copies:
                    _log.info("would ask for image", image=copy.name, repository=copy.repository, digest=copy.wanted)
                return 0
            failed += await failures(copies, self._ask)
        return failed

    async def _ask(self, copy: Copy) -> bool:
        log = _log.bind(image=copy.name, repository=copy.repository, digest=copy.wanted)
        planned = self._plan.get(copy.wish)
        api = self._publishers.get(copy.repository)
        reason = ""
        if planned is None:
            reason = "its wish is on no list that can be read at present"
        elif api is None:
            reason = f"no publisher is set for {copy.repository}: name it in CONVERTER_PUBLISHERS"
        else:
            try:
                published = await self._request(copy, planned, api)
            except SuiteError as error:
                reason = str(error)
            else:
                log.info("image asked for", published=published)
                if published:
                    await self._published([copy])
                else:
                    await self._state.copies.asked(copy)
                    await self._asked(copy)
                    self._follow()
                return True
        log.warning("image cannot be asked for", reason=reason)
        due = self._state.clock.steady() + self._backoff.pause(copy.attempts)
        await self._state.copies.postponed(copy, reason=reason, due=due)
        return False

    async def _request(self, copy: Copy, planned: Planned, api: PublisherApi) -> bool:
        """Ask for a copy; return whether it is published already."""
        wish = planned.wish
        reference = replace(planned.reference, tag=copy.name.tag, digest=copy.wanted)
        verified = await self._verification.verify(
            copy.name, reference, self._plan.wishing(planned, copy.name), self._plan.policies
        )
        # One that has lost its turn may know an earlier digest than was asked for since.
        await self._state.database.confirm()
        answer = await api.images.ask(
            ImageRequest(
                name=copy.name,
                digest=copy.wanted.oci,
                platforms=tuple(str(platform) for platform in wish.platforms),
                priority=max(-_PRIORITY, min(_PRIORITY, wish.priority)),
                verified=verified,
                outputs=wish.outputs,
                keep_replaced_seconds=wish.retention.replaced,
            )
        )
        return answer.state == "published" and answer.has(Digest(copy.wanted))
