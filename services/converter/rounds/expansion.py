"""From a wish to the images that it comes to now."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.converter.model import ChosenTags
from services.converter.rounds.plan import Planned
from services.converter.rounds.side_by_side import side_by_side
from services.converter.state.state import State
from services.converter.wishlist.selection import candidates, choose, exact_name, image_name, needs_creation
from services.registry.client import RegistryClient
from services.registry.errors import RegistryError

__all__ = ["Expander", "Expansion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """The images of a wish."""

    images: Mapping[ImageName, Digest | None]
    """Names, and the digests that the wish itself names."""
    listed: frozenset[str] | None = None
    """All tags that the registry lists; None where it was not asked."""
    heads: Mapping[ImageName, Digest] = field(default_factory=dict)
    """What names were found to stand for meanwhile."""
    troubles: Mapping[ImageName, str] = field(default_factory=dict)
    """Images about which nothing could be learned, so that they are neither among the images nor certainly not."""


class Expander:
    """Expands wishes.

    Parameters
    ----------
    registry
        What the tags come from.
    state
        Remembers when images were made.
    """

    def __init__(self, *, registry: RegistryClient, state: State) -> None:
        self._registry = registry
        self._state = state

    async def expand(self, planned: Planned, *, only: str | None = None) -> Expansion:
        """Return the images of a wish.

        Parameters
        ----------
        only
            The tag that is asked about; the others are not listed where this one's own name decides.

        Raises
        ------
        RegistryError
            The tags cannot be had.
        """
        wish = planned.wish
        exact = exact_name(wish)
        if exact is not None:
            name, digest = exact
            return Expansion(images={} if only is not None and name.tag != only else {name: digest})
        selection = wish.tags
        if not isinstance(selection, ChosenTags):
            raise TypeError(f"no such selection of tags: {selection!r}")
        if only is not None and selection.newest is None and selection.max_age is None:
            return Expansion(images={image_name(wish, tag): None for tag in candidates(selection, (only,))})
        tags = await self._registry.tags(planned.reference)
        picked = candidates(selection, tags)
        heads: dict[ImageName, Digest] = {}
        troubles: dict[ImageName, str] = {}
        created: dict[str, datetime | None] = {}
        if needs_creation(selection):
            created = await self._creations(planned, picked, heads, troubles)
            picked = tuple(tag for tag in picked if tag in created)
        chosen = choose(selection, picked, created=created, now=datetime.fromtimestamp(self._state.clock.now(), UTC))
        return Expansion(
            images={image_name(wish, tag): None for tag in chosen},
            listed=frozenset(tags),
            heads=heads,
            troubles=troubles,
        )

    async def _creations(
        self, planned: Planned, tags: tuple[str, ...], heads: dict[ImageName, Digest], troubles: dict[ImageName, str]
    ) -> dict[str, datetime | None]:
        """Return when images were made; what is read once is remembered by its digest."""
        found: dict[str, Digest] = {}

        async def look(tag: str) -> None:
            name = image_name(planned.wish, tag)
            try:
                found[tag] = (await self._registry.head(replace(planned.reference, tag=tag))).digest
            except RegistryError as error:
                troubles[name] = str(error)
            else:
                heads[name] = found[tag]

        await side_by_side(tags, look)
        times = await self._state.images.creations(set(found.values()))

        async def read(digest: Digest) -> None:
            try:
                time = await self._created(planned, digest)
            except RegistryError as error:
                troubles.update((name, str(error)) for name, head in heads.items() if head == digest)
            else:
                times[digest] = time
                await self._state.images.created(digest, time)

        await side_by_side([digest for digest in dict.fromkeys(found.values()) if digest not in times], read)
        return {
            tag: None if (time := times[digest]) is None else datetime.fromtimestamp(time, UTC)
            for tag, digest in found.items()
            if digest in times
        }

    async def _created(self, planned: Planned, digest: Digest) -> float | None:
        reference = replace(planned.reference, tag=None, digest=digest)
        image = await self._registry.image(reference, planned.wish.platforms[0])
        try:
            return datetime.fromisoformat(str(json.loads(image.config)["created"])).timestamp()
        except (ValueError, LookupError, OverflowError, TypeError):
            return None  # it does not tell
