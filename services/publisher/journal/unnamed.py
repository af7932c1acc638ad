"""The journal of layers that came from registries and are named by no image that is visible.

Two things must have passed before one goes. By the clock, a period since it was last named; and by the publisher's own
running time, which no step of a clock changes, a time in which the publisher has seen it named by nothing. The latter
is added up across restarts.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from services.common.digest import Digest
from services.publisher.journal.file import JournalFile

__all__ = ["UnnamedJournal", "UnnamedLayer", "UnnamedSummary"]

_COMMITTED = """
    source = 'bucket' AND state = 'published' AND digest IN (SELECT value FROM json_each(:digests))
    AND NOT EXISTS (
        SELECT 1 FROM version_layers JOIN image_versions USING (name, digest)
        WHERE layer = layers.digest AND collected_at IS NULL AND keep_until > :now
    )
"""
"""What came by commits, and is kept for no version that can be brought back."""
_IN_USE = """
    EXISTS (
        SELECT 1 FROM version_layers JOIN image_versions USING (name, digest) JOIN images USING (name)
        WHERE layer = layers.digest AND collected_at IS NULL AND (
            (image_versions.published_at IS NOT NULL AND replaced_at IS NULL AND image_versions.removed_at IS NULL)
            OR NOT (images.state IN ('published', 'removed') OR (images.state = 'failed' AND NOT images.retryable))
        )
    )
"""
"""What is named by a version that is visible, or that may become so: that of an image which is being worked on."""


@dataclass(frozen=True, slots=True)
class UnnamedLayer:
    """A layer that may go."""

    digest: Digest
    size: int | None
    """What its files take, in bytes, where that is known."""
    named_last: float
    """Until when it was named, or kept for versions that named it; in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class UnnamedSummary:
    """How much is named by nothing."""

    layers: int
    size: int
    """Sum of the sizes that are known, in bytes."""


class UnnamedJournal:
    """What is to be collected.

    Parameters
    ----------
    file
        The journal's file, open while this is used.
    """

    def __init__(self, file: JournalFile) -> None:
        self._file = file

    async def look(self, elapsed: float) -> None:
        """Take note of which layers are named by nothing.

        Parameters
        ----------
        elapsed
            Seconds for which the publisher has run since the last look.
        """
        async with self._file.transaction() as run:
            await run("UPDATE watch SET seconds = seconds + :elapsed RETURNING 1", elapsed=elapsed)
            await run(
                """
                DELETE FROM watched WHERE NOT EXISTS (
                    SELECT 1 FROM layers WHERE digest = watched.digest AND named_last = watched.named_last
                ) RETURNING 1
                """
            )
            await run(
                """
                INSERT OR IGNORE INTO watched
                SELECT layers.digest, named_last, seconds FROM layers, watch
                WHERE named_last IS NOT NULL AND source = 'registry' AND state = 'published' RETURNING 1
                """
            )

    async def due(self, *, after: float, seen: float, limit: int) -> list[UnnamedLayer]:
        """Return layers that may go, those first that have been named by nothing for longest.

        Parameters
        ----------
        after
            Seconds since they were last named, by the clock.
        seen
            Seconds of its own running time in which the publisher has seen them named by nothing.
        limit
            Most of them.
        """
        rows = await self._file.run(
            f"""
            SELECT digest, tree_size, layers.named_last FROM layers JOIN watched USING (digest), watch
            WHERE layers.named_last = watched.named_last AND layers.named_last + :after <= :now
                AND seconds - since >= :seen AND source = 'registry' AND state = 'published' AND NOT {_IN_USE}
            ORDER BY layers.named_last, digest LIMIT :limit
            """,  # noqa: S608 - a constant
            after=after,
            seen=seen,
            limit=limit,
        )
        return [UnnamedLayer(Digest(row["digest"]), row["tree_size"], row["named_last"]) for row in rows]

    async def committed(self, digests: Sequence[Digest]) -> list[UnnamedLayer]:
        """Return those of some layers that came by commits, and that no image names or is kept for."""
        rows = await self._file.run(
            f"""
            SELECT digest, tree_size, updated_at FROM layers WHERE {_COMMITTED} AND NOT {_IN_USE} ORDER BY digest
            """,  # noqa: S608 - constants of this module
            digests=json.dumps(list(digests)),
        )
        return [UnnamedLayer(Digest(row["digest"]), row["tree_size"], row["updated_at"]) for row in rows]

    async def release(self, digests: Sequence[Digest]) -> None:
        """Record that an operator lets layers be collected that came by commits, as if they had come from registries.

        One that is announced once more counts as committed again.
        """
        await self._file.run(
            f"""
            UPDATE layers SET source = 'registry', named_last = :now WHERE {_COMMITTED} AND NOT {_IN_USE} RETURNING 1
            """,  # noqa: S608 - constants of this module
            digests=json.dumps(list(digests)),
        )

    async def claim(self, digests: Sequence[Digest]) -> list[Digest]:
        """Give up the versions that name some layers; return those of the layers that nothing names any more.

        From now on such a version cannot be brought back without its layers being fetched. That the layers are being
        taken out is known until `collected` says what became of it.
        """
        async with self._file.transaction() as run:
            rows = await run(
                f"""
                SELECT digest FROM layers WHERE source = 'registry' AND state = 'published' AND named_last IS NOT NULL
                    AND digest IN (SELECT value FROM json_each(:digests)) AND NOT {_IN_USE} ORDER BY digest
                """,  # noqa: S608 - a constant
                digests=json.dumps(list(digests)),
            )
            claimed = [Digest(row["digest"]) for row in rows]
            versions = await run(
                """
                SELECT DISTINCT name, digest FROM version_layers JOIN image_versions USING (name, digest)
                WHERE layer IN (SELECT value FROM json_each(:claimed)) AND collected_at IS NULL
                    AND published_at IS NOT NULL
                """,
                claimed=json.dumps(claimed),
            )
            for version in versions:
                key = {"name": version["name"], "digest": version["digest"]}
                await run(
                    "UPDATE image_versions SET collected_at = :now WHERE name = :name AND digest = :digest RETURNING 1",
                    **key,
                )
                await run("DELETE FROM version_documents WHERE name = :name AND digest = :digest RETURNING 1", **key)
            await run(
                "INSERT OR IGNORE INTO collecting SELECT value FROM json_each(:claimed) RETURNING 1",
                claimed=json.dumps(claimed),
            )
        return claimed

    async def interrupted(self) -> list[Digest]:
        """Return the layers that an earlier publisher was taking out, and may have taken out."""
        return [Digest(row["digest"]) for row in await self._file.run("SELECT digest FROM collecting")]

    async def collected(self, digests: Sequence[Digest]) -> None:
        """Record that layers are in the repository no more, and that no collection is under way.

        What the bucket has announced meanwhile is fetched.
        """
        given = json.dumps(list(digests))
        async with self._file.transaction() as run:
            await run(
                """
                DELETE FROM layers WHERE source = 'registry' AND state = 'published'
                    AND digest IN (SELECT value FROM json_each(:digests)) RETURNING 1
                """,
                digests=given,
            )
            await run(
                """
                UPDATE layers SET state = 'announced', retryable = 0, due = 0, updated_at = :now
                WHERE state = 'published' AND digest IN (SELECT value FROM json_each(:digests)) RETURNING 1
                """,
                digests=given,
            )
            await run("DELETE FROM collecting RETURNING 1")

    async def summary(self) -> UnnamedSummary:
        """Return how much is named by nothing, whether it may go yet or not."""
        ((layers, size),) = await self._file.run(
            """
            SELECT count(*), coalesce(sum(tree_size), 0) FROM layers
            WHERE named_last IS NOT NULL AND source = 'registry' AND state = 'published'
            """
        )
        return UnnamedSummary(layers, size)
