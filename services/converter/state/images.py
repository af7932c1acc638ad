"""What the registries said of every image, and what follows for its copies."""

import json
from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import and_, case, func, or_, select, update

from services.common.database.columns import NUMBER, SECONDS
from services.common.database.expressions import given, insert, listed
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.converter.state.clock import SteadyClock
from services.converter.state.database import StateDatabase
from services.converter.state.model import KnownImage, Want
from services.converter.state.tables import copies, creations, images

__all__ = ["ImageRecords"]

_i: Final = images.c
_c: Final = copies.c
_THERE: Final = {"missing": 0, "missing_since": None, "missing_last": None, "emptied": 0, "reason": None}
_OF_WISH: Final = (
    select(
        _i.name,
        _i.digest,
        _i.missing,
        func.max(case((_c.dropped.is_not(None), 1), else_=0)).label("dropped"),
    )
    .select_from(copies.join(images, _c.name == _i.name))
    .where(_c.wish == given("key"))
    .group_by(_i.name, _i.digest, _i.missing)
)
_UNCHANGED: Final = update(images).values(checked_at=given("now"), **_THERE).where(_i.name.in_(listed("names")))
_FOUND: Final = (
    insert(images)
    .values(name=given("name"), digest=given("digest"), changed_at=given("now"), checked_at=given("now"))
    .on_conflict_do_update(
        index_elements=[_i.name],
        set_={
            "changed_at": case((_i.digest == given("digest"), _i.changed_at), else_=given("now", SECONDS)),
            "digest": given("digest"),
            "checked_at": given("now"),
            **_THERE,
        },
    )
)
_wanted: Final = {
    "wish": given("wish"),
    "source": given("source"),
    "gone_after": given("gone"),
    "dropped_after": given("dropped"),
    "state": "wanted",
    "wanted": given("digest"),
}
# What is published already is asked for once more: platforms or policies may be other ones.
_WANT: Final = (
    insert(copies)
    .values(name=given("name"), repository=given("repository"), wanted_at=given("now"), **_wanted)
    .on_conflict_do_update(
        index_elements=[_c.repository, _c.name],
        set_={
            **_wanted,
            "wanted_at": case(
                (
                    and_(_c.wanted == given("digest"), _c.published.is_distinct_from(given("digest"))),
                    _c.wanted_at,
                ),
                else_=given("now", SECONDS),
            ),
            "due": 0,
            "attempts": 0,
            "reason": None,
            "dropped": None,
            "dropped_why": None,
        },
    )
)
_begins_anew: Final = and_(_i.emptied != 0, given("emptied", NUMBER) == 0)
"""Whether what was counted while a repository was empty counts for nothing, since it is so no more."""
_MISSING: Final = (
    update(images)
    .values(
        missing=case((_begins_anew, 1), else_=_i.missing + 1),
        missing_since=case(
            (_begins_anew, given("steady", SECONDS)),
            else_=func.coalesce(_i.missing_since, given("steady", SECONDS)),
        ),
        missing_last=given("steady"),
        emptied=given("emptied", NUMBER),
        checked_at=given("now"),
    )
    .where(_i.name == given("name"))
)
_TROUBLED: Final = update(images).values(reason=given("reason")).where(_i.name == given("name"))
_DROPPED: Final = (
    update(copies)
    .values(dropped=given("steady"), dropped_why=given("why"))
    .where(_c.wish == given("wish"), _c.dropped.is_(None), _c.name.in_(listed("names")))
)
_DROPPED_WISHES: Final = (
    update(copies)
    .values(dropped=given("steady"), dropped_why="its wish list wishes it no more")
    .where(
        _c.dropped.is_(None),
        _c.wish.not_in(listed("present")),
        or_(_c.source.in_(listed("whole")), given("taken_away", NUMBER) == 1),
    )
    .returning(_c.name)
)
_CREATIONS: Final = select(creations.c.digest, creations.c.created).where(creations.c.digest.in_(listed("digests")))
_CREATED: Final = insert(creations).values(digest=given("digest"), created=given("created")).on_conflict_do_nothing()


class ImageRecords:
    """The table of images. Every method raises `StateError`.

    Parameters
    ----------
    database
        Where it is.
    clock
        How late it is.
    """

    def __init__(self, *, database: StateDatabase, clock: SteadyClock) -> None:
        self._database = database
        self._clock = clock

    async def of_wish(self, key: str) -> dict[str, KnownImage]:
        """Return the images that are there for a wish, by name."""
        rows = await self._database.run(_OF_WISH, key=key)
        return {row["name"]: KnownImage(row["digest"], row["missing"] > 0, bool(row["dropped"])) for row in rows}

    async def unchanged(self, names: Iterable[ImageName]) -> None:
        """Record that images were found as they were."""
        await self._database.run(_UNCHANGED, names=json.dumps(list(names)), now=self._clock.now())

    async def found(self, name: ImageName, digest: Digest, wants: Sequence[Want]) -> None:
        """Record the digest that a wished image has now; its copies are wanted with it from then on.

        Parameters
        ----------
        wants
            Where copies are wished; copies elsewhere that the same wishes wished before are dropped.
        """
        now = self._clock.now()
        async with self._database.transaction() as run:
            await run(_FOUND, name=name, digest=digest, now=now)
            for want in wants:
                await run(
                    _WANT,
                    name=name,
                    repository=want.repository,
                    wish=want.wish,
                    source=want.source,
                    gone=want.retention.gone,
                    dropped=want.retention.dropped,
                    digest=digest,
                    now=now,
                )

    async def missing(self, name: ImageName, *, emptied: bool) -> None:
        """Record that the registry has definitely no such image, said to somebody who may see the repository.

        Parameters
        ----------
        emptied
            Whether it has nothing else in the repository either. What was counted so counts for nothing once it has.
        """
        await self._database.run(
            _MISSING, name=name, emptied=int(emptied), steady=self._clock.steady(), now=self._clock.now()
        )

    async def troubled(self, name: ImageName, reason: str) -> None:
        """Record why nothing could be learned of an image; nothing follows from it."""
        await self._database.run(_TROUBLED, name=name, reason=reason)

    async def dropped(self, wish: str, names: Iterable[ImageName], why: str) -> None:
        """Record that a wish does not select images any more."""
        await self._database.run(
            _DROPPED, wish=wish, names=json.dumps(list(names)), steady=self._clock.steady(), why=why
        )

    async def dropped_wishes(
        self, *, present: Iterable[str], whole: Iterable[str], incomplete: Iterable[str]
    ) -> tuple[ImageName, ...]:
        """Record that wishes are on their lists no more, and return the images of which a copy is dropped now.

        Parameters
        ----------
        present
            Keys of the wishes that there are.
        whole
            The wish lists that were read from beginning to end.
        incomplete
            Those that were not: nothing follows from what they do not name. A list that is none of all these has been
            taken away, but where there is no list at all, or one that was not read whole.
        """
        read = list(whole)
        rows = await self._database.run(
            _DROPPED_WISHES,
            present=json.dumps(list(present)),
            whole=json.dumps(read),
            taken_away=int(bool(read) and not list(incomplete)),
            steady=self._clock.steady(),
        )
        return tuple(sorted({ImageName(row["name"]) for row in rows}))

    async def creations(self, digests: Iterable[Digest]) -> dict[Digest, float | None]:
        """Return when images were made, of those for which it is known; in seconds since the epoch."""
        rows = await self._database.run(_CREATIONS, digests=json.dumps(list(digests)))
        return {Digest(row["digest"]): row["created"] for row in rows}

    async def created(self, digest: Digest, created: float | None) -> None:
        """Record when an image was made; None if it does not tell."""
        await self._database.run(_CREATED, digest=digest, created=created)
