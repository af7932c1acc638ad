"""Copies of images in CVMFS repositories, and what publishers said of them."""

import json
import sqlite3
from collections.abc import Iterable, Mapping

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.repository_name import RepositoryName
from services.common.sqlite_file import SqliteFile
from services.converter.state.clock import SteadyClock
from services.converter.state.model import Copy, Lateness, Removable

__all__ = ["CopyRecords"]


class CopyRecords:
    """The table of copies: `wanted`, then `asked` for, then `published` or `failed`. Methods raise `SqliteFileError`.

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

    async def due(self, limit: int) -> list[Copy]:
        """Return copies that are to be asked for now, those first that have waited longest."""
        rows = await self._file.run(
            """
            SELECT * FROM copies
            WHERE state = 'wanted' AND due <= :steady AND dropped IS NULL ORDER BY due, wanted_at LIMIT :limit
            """,
            steady=self._clock.steady(),
            limit=limit,
        )
        return [_copy(row) for row in rows]

    async def next_due(self) -> float | None:
        """Return when the next copy is to be asked for; None if none is."""
        ((due,),) = await self._file.run("SELECT min(due) FROM copies WHERE state = 'wanted' AND dropped IS NULL")
        return None if due is None else float(due)

    async def asked(self, copy: Copy) -> None:
        """Record that a publisher has taken the request, unless something else is wanted by now."""
        await self._file.run(
            """
            UPDATE copies SET state = 'asked', asked_at = :now, reason = NULL
            WHERE repository = :repository AND name = :name AND wanted = :wanted AND state = 'wanted'
            """,
            repository=copy.repository,
            name=copy.name,
            wanted=copy.wanted,
            now=self._clock.now(),
        )

    async def postponed(self, copy: Copy, *, reason: str, due: float) -> None:
        """Record why a copy could not be asked for, and when it is tried again."""
        await self._file.run(
            """
            UPDATE copies SET state = 'wanted', due = :due, attempts = attempts + 1, reason = :reason
            WHERE repository = :repository AND name = :name AND wanted = :wanted
            """,
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
        rows = await self._file.run(
            """
            UPDATE copies SET due = 0
            WHERE state = 'wanted' AND due > :steady AND dropped IS NULL AND wanted = :digest
                AND wish IN (SELECT value FROM json_each(:wishes))
            RETURNING name
            """,
            steady=self._clock.steady(),
            digest=digest,
            wishes=json.dumps(list(wishes)),
        )
        return [ImageName(row[0]) for row in rows]

    async def hinted(self, name: ImageName) -> list[ImageName]:
        """Have the copies of an image tried again at once that wait for that; return them."""
        rows = await self._file.run(
            """
            UPDATE copies SET due = 0 WHERE state = 'wanted' AND due > :steady AND dropped IS NULL AND name = :name
            RETURNING name
            """,
            steady=self._clock.steady(),
            name=name,
        )
        return [ImageName(row[0]) for row in rows]

    async def outstanding(self, repository: RepositoryName) -> list[Copy]:
        """Return the copies that a publisher was asked for and has not published, as far as is known."""
        rows = await self._file.run(
            """
            SELECT * FROM copies
            WHERE repository = :repository AND state IN ('asked', 'failed') ORDER BY state, asked_at
            """,
            repository=repository,
        )
        return [_copy(row) for row in rows]

    async def published(self, copies: Iterable[Copy]) -> list[Copy]:
        """Record copies as published; return those for which that is news."""
        news = []
        async with self._file.transaction() as run:
            for copy in copies:
                changed = await run(
                    """
                    UPDATE copies SET state = 'published', published = wanted, published_at = :now, attempts = 0,
                        reason = NULL
                    WHERE repository = :repository AND name = :name AND wanted = :wanted AND state <> 'published'
                    RETURNING 1
                    """,
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
        rows = await self._file.run(
            """
            UPDATE copies SET state = 'failed', reason = reasons.value, attempts = attempts + 1
            FROM json_each(:reasons) AS reasons
            WHERE repository = :repository AND name = reasons.key AND state IN ('asked', 'failed')
                AND (state = 'asked' OR reason IS NOT reasons.value)
            RETURNING name
            """,
            repository=repository,
            reasons=json.dumps(dict(reasons)),
        )
        return [ImageName(row[0]) for row in rows]

    async def lost(self, repository: RepositoryName, names: Iterable[ImageName]) -> int:
        """Record that a publisher does not have what it had published; return how many are asked for once more."""
        rows = await self._file.run(
            """
            UPDATE copies SET state = 'wanted', due = 0, published = NULL, wanted_at = :now
            WHERE repository = :repository AND state = 'published' AND name IN (SELECT value FROM json_each(:names))
            RETURNING 1
            """,
            repository=repository,
            names=json.dumps(list(names)),
            now=self._clock.now(),
        )
        return len(rows)

    async def asked_again(self, names: Iterable[ImageName]) -> None:
        """Have failed copies asked for once more, and those that their publisher may have forgotten."""
        await self._file.run(
            """
            UPDATE copies SET state = 'wanted', due = 0
            WHERE state IN ('asked', 'failed') AND name IN (SELECT value FROM json_each(:names))
            """,
            names=json.dumps(list(names)),
        )

    async def removable(self) -> list[Removable]:
        """Return the copies that are not wished any more, or whose registries say that they are gone."""
        rows = await self._file.run(
            """
            SELECT name, repository, emptied, wish, dropped, dropped_why, dropped_after, missing, missing_since,
                missing_last, gone_after
            FROM copies JOIN images USING (name) WHERE dropped IS NOT NULL OR missing > 0 ORDER BY name, repository
            """
        )
        return [
            Removable(
                name=ImageName(row["name"]),
                repository=RepositoryName(row["repository"]),
                emptied=bool(row["emptied"]),
                **{field: row[field] for field in row.keys()[3:]},
            )
            for row in rows
        ]

    async def count(self) -> int:
        """Return how many copies there are."""
        ((count,),) = await self._file.run("SELECT count(*) FROM copies")
        return int(count)

    async def removed(self, name: ImageName, repository: RepositoryName) -> None:
        """Forget a copy, and its image with the last of them."""
        async with self._file.transaction() as run:
            for table in ("copies", "thin_images"):
                await run(
                    f"DELETE FROM {table} WHERE name = :name AND repository = :repository",  # noqa: S608 - these two
                    name=name,
                    repository=repository,
                )
            await run(
                "DELETE FROM images WHERE name = :name AND NOT EXISTS (SELECT 1 FROM copies WHERE name = :name)",
                name=name,
            )

    async def late(self, limit: int) -> list[Lateness]:
        """Return copies that are not what they should be, those first that have waited longest."""
        rows = await self._file.run(
            """
            SELECT name, repository, state, wanted_at, attempts, reason FROM copies
            WHERE state <> 'published' AND dropped IS NULL ORDER BY wanted_at LIMIT :limit
            """,
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


def _copy(row: sqlite3.Row) -> Copy:
    return Copy(
        name=ImageName(row["name"]),
        repository=RepositoryName(row["repository"]),
        wish=row["wish"],
        wanted=Digest(row["wanted"]),
        wanted_at=row["wanted_at"],
        attempts=row["attempts"],
        published=None if row["published"] is None else Digest(row["published"]),
    )
