"""What polls found as it was, gathered from all of them: thousands are recorded and told at once."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.repository_name import RepositoryName
from services.converter.rounds.publishers import Publishers
from services.converter.state.model import Polled, Want
from services.converter.state.state import State

__all__ = ["Records"]

_AT_ONCE: Final = 1000
"""Images, or wishes, that are recorded together."""
_SECONDS: Final = 2.0
"""How long something waits for others: a kill meanwhile costs a request each."""


class Records:
    """Gathers images that were found unchanged, and polls that have ended.

    Parameters
    ----------
    state
        Remembers them.
    publishers
        Are told of the images.
    """

    def __init__(self, *, state: State, publishers: Publishers) -> None:
        self._state = state
        self._publishers = publishers
        self._images: dict[ImageName, tuple[Digest, Sequence[Want]]] = {}
        self._polls: dict[str, Polled] = {}
        self._some = asyncio.Event()

    async def unchanged(self, name: ImageName, digest: Digest, wants: Sequence[Want]) -> None:
        """Take an image that was found as it was; its publishers are asked whether they have it as well."""
        self._images[name] = (digest, wants)
        self._some.set()
        if len(self._images) >= _AT_ONCE:
            await self.flush()

    async def polled(self, key: str, poll: Polled) -> None:
        """Take a poll that has ended."""
        self._polls[key] = poll
        self._some.set()
        if len(self._polls) >= _AT_ONCE:
            await self.flush()

    async def flush(self) -> None:
        """Record what there is; raises `StateError`."""
        images, self._images = self._images, {}
        polls, self._polls = self._polls, {}
        if polls:
            await self._state.wishes.polled(polls)
        if not images:
            return
        await self._state.images.unchanged(images)
        checked = defaultdict[RepositoryName, list[tuple[ImageName, Digest]]](list)
        for name, (digest, wants) in images.items():
            for want in wants:
                checked[want.repository].append((name, digest))
        await self._publishers.confirm(checked)

    async def run(self) -> None:
        """Record what has come, now and then, until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(_SECONDS)
            self._some.clear()
            await self.flush()
