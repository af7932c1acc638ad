"""One poll of one wish: what its images are now, and which of them are as they were.

An unchanged image costs one request, and its place in a list that is recorded a thousand at a time. A registry that
fails makes nothing missing: only a definite "no such image" counts, said in a repository that shows other tags to the
same user.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.converter.rounds.expansion import Expander, Expansion
from services.converter.rounds.plan import Plan, Planned
from services.converter.rounds.records import Records
from services.converter.rounds.side_by_side import side_by_side
from services.converter.state.model import KnownImage, Want
from services.converter.state.state import State
from services.registry.client import RegistryClient
from services.registry.errors import AuthenticationError, ImageMissingError, RegistryError, RegistryUnavailableError

__all__ = ["PollResult", "Poller"]

_STRIKES: Final = 5
"""Requests that fail one after another before a registry is left alone until the next poll."""


@dataclass(slots=True)
class PollResult:
    """What a poll came to."""

    asked: int = 0
    """Images that the registry was asked about."""
    changed: int = 0
    missing: int = 0
    """Images that the registry definitely does not have."""
    troubles: dict[ImageName, str] = field(default_factory=dict)
    """Images about which nothing could be learned, and why."""


class Poller:
    """Polls wishes.

    Parameters
    ----------
    registry
        What is asked.
    state
        What is remembered.
    plan
        All wishes, since several may wish one image.
    records
        Take what was found unchanged.
    """

    def __init__(self, *, registry: RegistryClient, state: State, plan: Plan, records: Records) -> None:
        self._registry = registry
        self._state = state
        self._plan = plan
        self._records = records
        self._expander = Expander(registry=registry, state=state)

    async def poll(self, planned: Planned, *, only: str | None = None, anew: bool = False) -> PollResult:
        """Poll a wish.

        Parameters
        ----------
        only
            The one tag that something was heard of; None looks at all.
        anew
            Whether also what is unchanged is wanted anew, since the wish is another one.

        Raises
        ------
        RegistryError
            The registry cannot be asked at all; nothing follows from what it did not say.
        StateError
            The state failed.
        """
        began = self._state.clock.steady()
        expansion = await self._expander.expand(planned, only=only)
        known = await self._state.images.of_wish(planned.key)
        if only is None:
            planned.images = expansion.images
        else:
            planned.images = {**planned.images, **expansion.images}
        poll = _Poll(
            registry=self._registry,
            state=self._state,
            plan=self._plan,
            records=self._records,
            planned=planned,
            expansion=expansion,
            known=known,
            anew=anew,
        )
        await side_by_side(poll.names(only), poll.look)
        if only is None:
            await poll.drop()
            planned.polled = began
        return poll.result


class _Poll:
    """One poll under way."""

    def __init__(
        self,
        *,
        registry: RegistryClient,
        state: State,
        plan: Plan,
        records: Records,
        planned: Planned,
        expansion: Expansion,
        known: Mapping[str, KnownImage],
        anew: bool,
    ) -> None:
        self._registry = registry
        self._state = state
        self._plan = plan
        self._records = records
        self._planned = planned
        self._expansion = expansion
        self._known = known
        self._anew = anew
        self._alone = self._wants_of(None) if len(plan.beside(planned)) == 1 else None
        self._strikes = 0
        self._listing = asyncio.Lock()
        self._listed = expansion.listed
        self.result = PollResult(troubles=dict(expansion.troubles))

    def names(self, only: str | None) -> list[ImageName]:
        """Return the images to look at."""
        images = self._expansion.images
        if only is not None:
            return [name for name in images if name.tag == only or name not in self._known]
        # What the registry does not list any more is asked for by name before anything follows.
        listed = self._expansion.listed
        lost = [] if listed is None else [ImageName(name) for name in self._known if name not in images]
        return [*images, *(name for name in lost if listed is not None and name.tag not in listed)]

    async def look(self, name: ImageName) -> None:
        """Look at one image."""
        wants = self._alone if self._alone is not None else self._wants_of(name)
        if not wants:
            return  # a wish of higher priority looks at it
        digest = self._expansion.images.get(name) or self._expansion.heads.get(name)
        if digest is None:
            digest = await self._head(name)
            if digest is None:
                return
        known = self._known.get(name)
        if name not in self._expansion.images:
            # The registry has it, though it does not list it: it stays as it is.
            await self._records.unchanged(name, digest, ())
        elif known is None or known.digest != digest or known.dropped or self._anew:
            self.result.changed += 1
            await self._state.images.found(name, digest, wants)
        else:
            await self._records.unchanged(name, digest, wants)

    async def drop(self) -> None:
        """Record which images the wish does not select any more, though their tags are there."""
        listed, images = self._expansion.listed, self._expansion.images
        if listed is None:
            return
        names = [ImageName(name) for name, image in self._known.items() if name not in images and not image.dropped]
        dropped = [name for name in names if name.tag in listed and name not in self._expansion.troubles]
        if dropped:
            await self._state.images.dropped(
                self._planned.key, dropped, "its tag is not among those that the wish selects any more"
            )

    def _wants_of(self, name: ImageName | None) -> list[Want]:
        return self._plan.decided_by(self._planned, name)

    async def _head(self, name: ImageName) -> Digest | None:
        self.result.asked += 1
        try:
            head = await self._registry.head(replace(self._planned.reference, tag=name.tag))
        except ImageMissingError as error:
            self._strikes = 0
            await self._missing(name, str(error))
        except RegistryError as error:
            await self._trouble(name, error)
        else:
            self._strikes = 0
            return head.digest
        return None

    async def _missing(self, name: ImageName, reason: str) -> None:
        """See whether a registry that has no such image has the repository, and shows it to this user."""
        try:
            listed = await self._tags()
        except RegistryError as error:
            await self._trouble(name, error)
            return
        self.result.troubles[name] = reason
        if name.tag in listed:
            text = f"{reason}; but the registry lists the tag all the same: nothing follows from it"
            await self._state.images.troubled(name, text)
            return
        self.result.missing += 1
        await self._state.images.missing(name, emptied=not listed)

    async def _tags(self) -> frozenset[str]:
        async with self._listing:
            if self._listed is None:
                self._listed = frozenset(await self._registry.tags(self._planned.reference))
            return self._listed

    async def _trouble(self, name: ImageName, error: RegistryError) -> None:
        self.result.troubles[name] = str(error)
        await self._state.images.troubled(name, str(error))
        if isinstance(error, RegistryUnavailableError | AuthenticationError):
            self._strikes += 1
            if self._strikes >= _STRIKES:
                raise error
