"""Follows what the publishers were asked for, until it is published."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import structlog

from services.common.image_name import ImageName
from services.common.publisher_api import PublisherApi, PublisherApiError
from services.common.repository_name import RepositoryName
from services.converter.rounds.publishers import Publishers
from services.converter.state.model import Copy
from services.converter.state.state import State

__all__ = ["Follower", "Looked"]

_log = structlog.get_logger(__name__)

_FIRST: Final = 0.1
_LAST: Final = 10.0
"""Seconds between two looks at a publisher, at first and in the end, while nothing comes of them."""
_SELDOM: Final = 60.0
"""Seconds between two looks while all that is outstanding has failed: a publisher tries again by itself."""
_FEW: Final = 8
"""Images that are asked for one by one: what is more is told by a list of all, a thousand in a request."""
_UNSAID: Final = "the publisher does not say why"


class Follower:
    """Takes copies from `asked` to `published`, or to `failed`; from there too, since publishers try again.

    Parameters
    ----------
    state
        What was asked for.
    publishers
        Know what became of it.
    published
        Told of what has been published.
    failed
        Told of what has failed, and why.
    wanted
        Told that something must be asked for once more.
    more
        Set by whoever has asked for something.
    """

    def __init__(
        self,
        *,
        state: State,
        publishers: Publishers,
        published: Callable[[Sequence[Copy]], Awaitable[None]],
        failed: Callable[[RepositoryName, dict[ImageName, str]], Awaitable[None]],
        wanted: Callable[[], None],
        more: asyncio.Event,
    ) -> None:
        self._state = state
        self._publishers = publishers
        self._published = published
        self._failed = failed
        self._wanted = wanted
        self._more = more

    async def run(self) -> None:
        """Follow everything until cancelled."""
        pause = _FIRST
        while True:
            self._more.clear()
            found = await self.look()
            pause = _FIRST if found.news else min(pause * 1.5, _LAST)
            bound = pause if found.outstanding else _SELDOM if found.failed else None
            try:
                async with asyncio.timeout(bound):
                    await self._more.wait()
                pause = _FIRST
            except TimeoutError:
                continue

    async def settle(self) -> int:
        """Follow everything until nothing is outstanding but what has failed; return how much has."""
        pause = _FIRST
        while (found := await self.look()).outstanding:
            pause = _FIRST if found.news else min(pause * 1.5, _LAST)
            await asyncio.sleep(pause)
        return found.failed

    async def look(self) -> "Looked":
        """Look at all publishers once.

        Raises
        ------
        StateError
            The state failed.
        """
        outstanding = failed = news = 0
        for repository in self._publishers.repositories:
            api = self._publishers.get(repository)
            copies = await self._state.copies.outstanding(repository)
            if not copies or api is None:
                continue
            try:
                answer = await _ask(api, copies)
            except PublisherApiError as error:
                _log.warning(
                    "publisher cannot be asked what became of images", repository=repository, reason=str(error)
                )
                outstanding += len(copies)
                continue
            if answer.done:
                await self._published(answer.done)
            if answer.failures:
                await self._failed(repository, answer.failures)
            if answer.forgotten:
                _log.warning(
                    "publisher has not heard of what it was asked for", repository=repository, images=answer.forgotten
                )
                await self._state.copies.asked_again(answer.forgotten)
                self._wanted()
            failed += len(answer.failures)
            outstanding += len(copies) - len(answer.done) - len(answer.failures)
            news += len(answer.done)
        return Looked(outstanding=outstanding, failed=failed, news=news)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a look at all publishers came to, in numbers of copies."""

    outstanding: int
    """Those that will be published, for all that is known."""
    failed: int
    news: int
    """Those that have been published since the last look."""


@dataclass(frozen=True, slots=True)
class _Answer:
    done: list[Copy] = field(default_factory=list)
    failures: dict[ImageName, str] = field(default_factory=dict)
    forgotten: list[ImageName] = field(default_factory=list)
    """Those that the publisher has not heard of, or that somebody else wants otherwise."""


async def _ask(api: PublisherApi, copies: Sequence[Copy]) -> _Answer:
    answer = _Answer()
    if len(copies) <= _FEW:
        await _ask_each(api, copies, answer)
        return answer
    unknown = set(await api.images.checked([(copy.name, copy.wanted) for copy in copies]))
    answer.done.extend(copy for copy in copies if copy.name not in unknown)
    waiting = {copy.name: copy for copy in copies if copy.name in unknown}
    async with aclosing(api.images.every([("state", "failed")])) as images:
        async for image in images:
            copy = waiting.get(ImageName(image.name))
            if copy is not None and image.digest == copy.wanted:
                answer.failures[copy.name] = image.reason or _UNSAID
                del waiting[copy.name]
    # A publisher that has lost its journal tells by the ones that have waited longest.
    await _ask_each(api, list(waiting.values())[:_FEW], answer)
    return answer


async def _ask_each(api: PublisherApi, copies: Sequence[Copy], answer: _Answer) -> None:
    for copy in copies:
        image = await api.images.image(copy.name)
        if image is None or image.digest != copy.wanted:
            answer.forgotten.append(copy.name)
        elif image.state == "published" and image.has(copy.wanted):
            answer.done.append(copy)
        elif image.state == "failed":
            answer.failures[copy.name] = image.reason or _UNSAID
