"""What the registries said of every image, and what follows for its copies."""

import json
from collections.abc import Iterable, Sequence

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.sqlite_file import SqliteFile
from services.converter.state.clock import SteadyClock
from services.converter.state.model import KnownImage, Want

__all__ = ["ImageRecords"]


class ImageRecords:
    """The table of images. Every method raises `SqliteFileError`.

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

    async def of_wish(self, key: str) -> dict[str, KnownImage]:
        """Return the images that are there for a wish, by name."""
        rows = await self._file.run(
            """
            SELECT name, digest, missing > 0, max(dropped IS NOT NULL) FROM copies JOIN images USING (name)
            WHERE copies.wish = :key GROUP BY name
            """,
            key=key,
        )
        return {row[0]: KnownImage(row[1], bool(row[2]), bool(row[3])) for row in rows}

    async def unchanged(self, names: Iterable[ImageName]) -> None:
        """Record that images were found as they were."""
        await self._file.run(
            """
            UPDATE images SET checked_at = :now, missing = 0, missing_since = NULL, missing_last = NULL, emptied = 0,
                reason = NULL
            WHERE name IN (SELECT value FROM json_each(:names))
            """,
            names=json.dumps(list(names)),
            now=self._clock.now(),
        )

    async def found(self, name: ImageName, digest: Digest, wants: Sequence[Want]) -> None:
        """Record the digest that a wished image has now; its copies are wanted with it from then on.

        Parameters
        ----------
        wants
            Where copies are wished; copies elsewhere that the same wishes wished before are dropped.
        """
        now = self._clock.now()
        async with self._file.transaction() as run:
            await run(
                """
                INSERT INTO images (name, digest, changed_at, checked_at) VALUES (:name, :digest, :now, :now)
                ON CONFLICT (name) DO UPDATE SET
                    changed_at = CASE WHEN digest = :digest THEN changed_at ELSE :now END,
                    digest = :digest, checked_at = :now, reason = NULL,
                    missing = 0, missing_since = NULL, missing_last = NULL, emptied = 0
                """,
                name=name,
                digest=digest,
                now=now,
            )
            for want in wants:
                # What is published already is asked for once more: platforms or policies may be other ones.
                await run(
                    """
                    INSERT INTO copies (name, repository, wish, source, gone_after, dropped_after, state, wanted,
                        wanted_at)
                    VALUES (:name, :repository, :wish, :source, :gone, :dropped, 'wanted', :digest, :now)
                    ON CONFLICT (repository, name) DO UPDATE SET
                        wish = :wish, source = :source, gone_after = :gone, dropped_after = :dropped,
                        wanted_at = CASE WHEN wanted = :digest AND published IS NOT :digest THEN wanted_at
                            ELSE :now END,
                        state = 'wanted', wanted = :digest, due = 0, attempts = 0, reason = NULL,
                        dropped = NULL, dropped_why = NULL
                    """,
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
        await self._file.run(
            """
            UPDATE images SET
                missing = CASE WHEN emptied AND NOT :emptied THEN 1 ELSE missing + 1 END,
                missing_since = CASE WHEN emptied AND NOT :emptied THEN :steady
                    ELSE coalesce(missing_since, :steady) END,
                missing_last = :steady, emptied = :emptied, checked_at = :now
            WHERE name = :name
            """,
            name=name,
            emptied=emptied,
            steady=self._clock.steady(),
            now=self._clock.now(),
        )

    async def troubled(self, name: ImageName, reason: str) -> None:
        """Record why nothing could be learned of an image; nothing follows from it."""
        await self._file.run("UPDATE images SET reason = :reason WHERE name = :name", name=name, reason=reason)

    async def dropped(self, wish: str, names: Iterable[ImageName], why: str) -> None:
        """Record that a wish does not select images any more."""
        await self._file.run(
            """
            UPDATE copies SET dropped = :steady, dropped_why = :why
            WHERE wish = :wish AND dropped IS NULL AND name IN (SELECT value FROM json_each(:names))
            """,
            wish=wish,
            names=json.dumps(list(names)),
            steady=self._clock.steady(),
            why=why,
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
        rows = await self._file.run(
            """
            UPDATE copies SET dropped = :steady, dropped_why = 'its wish list wishes it no more'
            WHERE dropped IS NULL AND wish NOT IN (SELECT value FROM json_each(:present))
                AND (source IN (SELECT value FROM json_each(:whole)) OR :taken_away)
            RETURNING name
            """,
            present=json.dumps(list(present)),
            whole=json.dumps(read),
            taken_away=bool(read) and not list(incomplete),
            steady=self._clock.steady(),
        )
        return tuple(sorted({ImageName(row[0]) for row in rows}))

    async def creations(self, digests: Iterable[Digest]) -> dict[Digest, float | None]:
        """Return when images were made, of those for which it is known; in seconds since the epoch."""
        rows = await self._file.run(
            "SELECT digest, created FROM creations WHERE digest IN (SELECT value FROM json_each(:digests))",
            digests=json.dumps(list(digests)),
        )
        return {Digest(row[0]): row[1] for row in rows}

    async def created(self, digest: Digest, created: float | None) -> None:
        """Record when an image was made; None if it does not tell."""
        await self._file.run(
            "INSERT INTO creations (digest, created) VALUES (:digest, :created) ON CONFLICT DO NOTHING",
            digest=digest,
            created=created,
        )
