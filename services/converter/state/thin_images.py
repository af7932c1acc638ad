"""Thin images that are to be pushed, and those that have been."""

import json
from typing import Final

from sqlalchemy import func, or_, select, update

from services.common.database.expressions import given, insert, limit
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.converter.state.clock import SteadyClock
from services.converter.state.database import StateDatabase
from services.converter.state.model import ThinRecord
from services.converter.state.tables import thin_images
from services.registry.platform import Platform

__all__ = ["ThinRecords"]

_c: Final = thin_images.c
_what: Final = {name: given(name) for name in ("name", "repository", "layout", "platforms", "digest")}
_WANTED: Final = (
    insert(thin_images)
    .values(reference=given("reference"), **_what)
    .on_conflict_do_update(
        index_elements=[_c.reference],
        set_={**_what, "pushed": None, "due": 0, "attempts": 0, "reason": None},
        where=or_(*(_c[name] != given(name) for name in _what)),
    )
    .returning(_c.reference)
)
_DUE: Final = (
    select(_c.reference, _c.name, _c.repository, _c.layout, _c.platforms, _c.digest, _c.attempts)
    .where(_c.pushed.is_(None), _c.due <= given("steady"))
    .order_by(_c.due)
    .limit(limit())
)
_NEXT_DUE: Final = select(func.min(_c.due).label("due")).where(_c.pushed.is_(None))
_of_record: Final = update(thin_images).where(_c.reference == given("reference"), _c.digest == given("digest"))
_PUSHED: Final = _of_record.values(pushed=given("pushed"), pushed_at=given("now"), reason=None)
_FAILED: Final = _of_record.values(due=given("due"), attempts=_c.attempts + 1, reason=given("reason"))


class ThinRecords:
    """The table of thin images. Every method raises `StateError`.

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

    async def wanted(self, record: ThinRecord) -> bool:
        """Record a thin image that should be there; return whether it is to be pushed."""
        rows = await self._database.run(
            _WANTED,
            reference=record.reference,
            name=record.name,
            repository=record.repository,
            layout=record.layout,
            platforms=json.dumps([str(platform) for platform in record.platforms]),
            digest=record.digest,
        )
        return bool(rows)

    async def due(self, limit: int) -> list[ThinRecord]:
        """Return thin images that are to be pushed now."""
        rows = await self._database.run(_DUE, steady=self._clock.steady(), limit=limit)
        return [
            ThinRecord(
                reference=row["reference"],
                name=ImageName(row["name"]),
                repository=RepositoryName(row["repository"]),
                layout=LayerLayout(row["layout"]),
                platforms=tuple(Platform.parse(text) for text in json.loads(row["platforms"])),
                digest=Digest(row["digest"]),
                attempts=row["attempts"],
            )
            for row in rows
        ]

    async def next_due(self) -> float | None:
        """Return when the next one is to be pushed; None if none is."""
        (row,) = await self._database.run(_NEXT_DUE)
        return None if row["due"] is None else float(row["due"])

    async def pushed(self, record: ThinRecord, digest: Digest) -> None:
        """Record the digest that was pushed, unless another image is to be pushed by now."""
        await self._database.run(
            _PUSHED,
            reference=record.reference,
            digest=record.digest,
            pushed=digest,
            now=self._clock.now(),
        )

    async def failed(self, record: ThinRecord, *, reason: str, due: float) -> None:
        """Record why one could not be pushed, and when it is tried again."""
        await self._database.run(_FAILED, reference=record.reference, digest=record.digest, due=due, reason=reason)
