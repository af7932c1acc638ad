"""Copies of images in CVMFS repositories, and what publishers said of them."""

import json
from collections.abc import Iterable, Mapping
from typing import Final

from sqlalchemy import delete, exists, func, literal_column, or_, select, update

from services.common.database.columns import kept
from services.common.database.expressions import given, limit, listed, mapped
from services.common.database.interface import Row
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.repository_name import RepositoryName
from services.converter.state.clock import SteadyClock
from services.converter.state.database import StateDatabase
from services.converter.state.model import Copy, Lateness, Removable
from services.converter.state.tables import copies, images, thin_images

__all__ = ["CopyRecords"]

_c: Final = copies.c
_i: Final = images.c
_t: Final = thin_images.c
_COLUMNS: Final = (_c.name, _c.repository, _c.wish, _c.wanted, _c.wanted_at, _c.attempts, _c.published)
_WAITING: Final = (_c.state == "wanted", _c.dropped.is_(None))
_OUTSTANDING: Final = or_(_c.state == "asked", _c.state == "failed")
_OF_COPY: Final = (_c.repository == given("repository"), _c.name == given("name"), _c.wanted == given("wanted"))
_DUE: Final = (
    select(*_COLUMNS).where(*_WAITING, _c.due <= given("steady")).order_by(_c.due, _c.wanted_at).limit(limit())
)
_NEXT_DUE: Final = select(func.min(_c.due).label("due")).where(*_WAITING)
_ASKED: Final = (
    update(copies).values(state="asked", asked_at=given("now"), reason=None).where(*_OF_COPY, _c.state == "wanted")
)
_POSTPONED: Final = (
    update(copies)
    .values(state="wanted", due=given("due"), attempts=_c.attempts + 1, reason=given("reason"))
    .where(*_OF_COPY)
)
_hurried: Final = update(copies).values(due=0).where(*_WAITING, _c.due > given("steady")).returning(_c.name)
_SIGNED: Final = _hurried.where(_c.wanted == given("digest"), _c.wish.in_(listed("wishes")))
_HINTED: Final = _hurried.where(_c.name == given("name"))
_TO_FOLLOW: Final = (
    select(*_COLUMNS).where(_c.repository == given("repository"), _OUTSTANDING).order_by(_c.state, _c.asked_at)
)
_PUBLISHED: Final = (
    update(copies)
    .values(state="published", published=_c.wanted, published_at=given("now"), attempts=0, reason=None)
    .where(*_OF_COPY, _c.state != "published")
    .returning(_c.name)
)
_reasons: Final = mapped("reasons")
_FAILED: Final = (
    update(copies)
    .values(state="failed", reason=_reasons.c.value, attempts=_c.attempts + 1)
    .where(
        _c.repository == given("repository"),
        _c.name == _reasons.c.key,
        _OUTSTANDING,
        or_(_c.state == "asked", _c.reason.is_distinct_from(_reasons.c.value)),
    )
    .returning(_c.name)
)
_LOST: Final = (
    update(copies)
    .values(state="wanted", due=0, published=None, wanted_at=given("now"))
    .where(_c.repository == given("repository"), _c.state == "published", _c.name.in_(listed("names")))
    .returning(_c.name)
)
_ASK_AGAIN: Final = update(copies).values(state="wanted", due=0).where(_OUTSTANDING, _c.name.in_(listed("names")))
_REMOVABLE: Final = (
    select(
        _c.name,
        _c.repository,
        _i.emptied,
        _c.wish,
        _c.dropped,
        _c.dropped_why,
        _c.dropped_after,
        _i.missing,
        _i.missing_since,
        _i.missing_last,
        _c.gone_after,
    )
    .select_from(copies.join(images, _c.name == _i.name))
    # Written out, as the words of the index are: those of parameters are not known to be the same.
    .where(or_(_c.dropped.is_not(None), _i.missing > literal_column("0")))
    .order_by(_c.name, _c.repository)
)
_COUNT: Final = select(func.count().label("number")).select_from(copies)
_FORGET: Final = (
    delete(copies).where(_c.name == given("name"), _c.repository == given("repository")),
    delete(thin_images).where(_t.name == given("name"), _t.repository == given("repository")),
    delete(images).where(_i.name == given("name"), ~exists().where(_c.name == given("name"))),
)
_LATE: Final = (
    select(_c.name, _c.repository, _c.state, _c.wanted_at, _c.attempts, _c.reason)
    .where(_c.state != "published", _c.dropped.is_(None))
    .order_by(_c.wanted_at)
    .limit(limit())
)


class CopyRecords:
    """The table of copies: `wanted`, then `asked` for, then `published` or `failed`. Methods raise `StateError`.

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

    async def due(self, limit: int) -> list[Copy]:
        """Return copies that are to be asked for now, those first that have waited longest."""
        rows = await self._database.run(
            _DUE,
            steady=self._clock.steady(),
            limit=limit,
        )
        return [_copy(row) for row in rows]

    async def next_due(self) -> float | None:
        """Return when the next copy is to be asked for; None if none is."""
        (row,) = await self._database.run(_NEXT_DUE)
        return None if row["due"] is None else float(row["due"])

    async def asked(self, copy: Copy) -> None:
        """Record that a publisher has taken the request, unless something else is wanted by now."""
        await self._database.run(
            _ASKED,
            repository=copy.repository,
            name=copy.name,
            wanted=copy.wanted,
            now=self._clock.now(),
        )

    async def postponed(self, copy: Copy, *, reason: str, due: float) -> None:
        """Record why a copy could not be asked for, and when it is tried again."""
        await self._database.run(
            _POSTPONED,
            repository=copy.repository,
            name=copy.name,
            wanted=copy.wanted,
            reason=reason,
            due=due,
        )

    async def signed(self, wishes: Iterable[str], digest: Digest) -> list[ImageName]:
        """Have copies tried again at once that wait for that, of an image that has been signed; return them.

        Parameters
        ----------
        wishes
            Keys of the wishes that may be about the image.
        digest
            What was signed.
        """
        rows = await self._database.run(
            _SIGNED,
            steady=self._clock.steady(),
            digest=digest,
            wishes=json.dumps(list(wishes)),
        )
        return [ImageName(row["name"]) for row in rows]

    async def hinted(self, name: ImageName) -> list[ImageName]:
        """Have the copies of an image tried again at once that wait for that; return them."""
        rows = await self._database.run(
            _HINTED,
            steady=self._clock.steady(),
            name=name,
        )
        return [ImageName(row["name"]) for row in rows]

    async def outstanding(self, repository: RepositoryName) -> list[Copy]:
        """Return the copies that a publisher was asked for and has not published, as far as is known."""
        rows = await self._database.run(
            _TO_FOLLOW,
            repository=repository,
        )
        return [_copy(row) for row in rows]

    async def published(self, copies: Iterable[Copy]) -> list[Copy]:
        """Record copies as published; return those for which that is news."""
        news = []
        async with self._database.transaction() as run:
            for copy in copies:
                changed = await run(
                    _PUBLISHED,
                    repository=copy.repository,
                    name=copy.name,
                    wanted=copy.wanted,
                    now=self._clock.now(),
                )
                if changed:
                    news.append(copy)
        return news

    async def failed(self, repository: RepositoryName, reasons: Mapping[ImageName, str]) -> list[ImageName]:
        """Record why a publisher could not publish what it was asked for; return those for which that is news."""
        rows = await self._database.run(
            _FAILED,
            repository=repository,
            reasons=json.dumps({name: kept(reason) for name, reason in reasons.items()}),
        )
        return [ImageName(row["name"]) for row in rows]

    async def lost(self, repository: RepositoryName, names: Iterable[ImageName]) -> int:
        """Record that a publisher does not have what it had published; return how many are asked for once more."""
        rows = await self._database.run(
            _LOST,
            repository=repository,
            names=json.dumps(list(names)),
            now=self._clock.now(),
        )
        return len(rows)

    async def asked_again(self, names: Iterable[ImageName]) -> None:
        """Have failed copies asked for once more, and those that their publisher may have forgotten."""
        await self._database.run(
            _ASK_AGAIN,
            names=json.dumps(list(names)),
        )

    async def removable(self) -> list[Removable]:
        """Return the copies that are not wished any more, or whose registries say that they are gone."""
        rows = await self._database.run(_REMOVABLE)
        return [
            Removable(
                name=ImageName(row["name"]),
                repository=RepositoryName(row["repository"]),
                emptied=bool(row["emptied"]),
                **{field: row[field] for field in list(row.keys())[3:]},
            )
            for row in rows
        ]

    async def count(self) -> int:
        """Return how many copies there are."""
        (row,) = await self._database.run(_COUNT)
        return int(row["number"])

    async def removed(self, name: ImageName, repository: RepositoryName) -> None:
        """Forget a copy, and its image with the last of them."""
        async with self._database.transaction() as run:
            for statement in _FORGET:
                await run(statement, name=name, repository=repository)

    async def late(self, limit: int) -> list[Lateness]:
        """Return copies that are not what they should be, those first that have waited longest."""
        rows = await self._database.run(
            _LATE,
            limit=limit,
        )
        return [
            Lateness(
                name=ImageName(row["name"]),
                repository=RepositoryName(row["repository"]),
                state=row["state"],
                wanted_at=row["wanted_at"],
                attempts=row["attempts"],
                reason=row["reason"],
            )
            for row in rows
        ]


def _copy(row: Row) -> Copy:
    return Copy(
        name=ImageName(row["name"]),
        repository=RepositoryName(row["repository"]),
        wish=row["wish"],
        wanted=Digest(row["wanted"]),
        wanted_at=row["wanted_at"],
        attempts=row["attempts"],
        published=None if row["published"] is None else Digest(row["published"]),
    )
