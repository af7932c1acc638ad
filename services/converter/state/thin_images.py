"""Thin images that are to be pushed, and those that have been."""

import json

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.common.sqlite_file import SqliteFile
from services.converter.state.clock import SteadyClock
from services.converter.state.model import ThinRecord
from services.registry.platform import Platform

__all__ = ["ThinRecords"]


class ThinRecords:
    """The table of thin images. Every method raises `SqliteFileError`.

    Parameters
    ----------
    file
        Where it is.
    clock
        How late it is.
    """

    def __init__(self, *, file: SqliteFile, clock: SteadyClock) -> None:
        self._file = file
        self._clock = clock

    async def wanted(self, record: ThinRecord) -> bool:
        """Record a thin image that should be there; return whether it is to be pushed."""
        rows = await self._file.run(
            """
            INSERT INTO thin_images (reference, name, repository, layout, platforms, digest)
            VALUES (:reference, :name, :repository, :layout, :platforms, :digest)
            ON CONFLICT (reference) DO UPDATE SET
                name = :name, repository = :repository, layout = :layout, platforms = :platforms, digest = :digest,
                pushed = NULL, due = 0, attempts = 0, reason = NULL
            WHERE digest <> :digest OR platforms <> :platforms OR layout <> :layout OR repository <> :repository
                OR name <> :name
            RETURNING 1
            """,
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
        rows = await self._file.run(
            "SELECT * FROM thin_images WHERE pushed IS NULL AND due <= :steady ORDER BY due LIMIT :limit",
            steady=self._clock.steady(),
            limit=limit,
        )
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
        ((due,),) = await self._file.run("SELECT min(due) FROM thin_images WHERE pushed IS NULL")
        return None if due is None else float(due)

    async def pushed(self, record: ThinRecord, digest: Digest) -> None:
        """Record the digest that was pushed, unless another image is to be pushed by now."""
        await self._file.run(
            """
            UPDATE thin_images SET pushed = :pushed, pushed_at = :now, reason = NULL
            WHERE reference = :reference AND digest = :digest
            """,
            reference=record.reference,
            digest=record.digest,
            pushed=digest,
            now=self._clock.now(),
        )

    async def failed(self, record: ThinRecord, *, reason: str, due: float) -> None:
        """Record why one could not be pushed, and when it is tried again."""
        await self._file.run(
            """
            UPDATE thin_images SET due = :due, attempts = attempts + 1, reason = :reason
            WHERE reference = :reference AND digest = :digest
            """,
            reference=record.reference,
            digest=record.digest,
            reason=reason,
            due=due,
        )
