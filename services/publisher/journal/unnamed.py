"""The journal of layers that came from registries and are named by no image that is visible.

Two things must have passed before one goes. By the clock, a period since it was last named; and by the publisher's own
running time, which no step of a clock changes, a time in which the publisher has seen it named by nothing. The latter
is added up across restarts.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from services.common.database.interface import Database
from services.common.digest import Digest
from services.publisher.journal import unnamed_statements as statements
from services.publisher.journal.version_statements import DROP_DOCUMENTS

__all__ = ["UnnamedJournal", "UnnamedLayer", "UnnamedSummary"]


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
    database
        The journal's, open while this is used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def look(self, elapsed: float) -> None:
        """Take note of which layers are named by nothing.

        Parameters
        ----------
        elapsed
            Seconds for which the publisher has run since the last look.
        """
        async with self._database.transaction() as run:
            await run(statements.RAN, elapsed=elapsed)
            await run(statements.FORGET_WATCHED)
            await run(statements.WATCH)

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
        rows = await self._database.run(statements.DUE, after=after, seen=seen, limit=limit)
        return [UnnamedLayer(Digest(row["digest"]), row["tree_size"], row["named_last"]) for row in rows]

    async def committed(self, digests: Sequence[Digest]) -> list[UnnamedLayer]:
        """Return those of some layers that came by commits, and that no image names or is kept for."""
        rows = await self._database.run(statements.COMMITTED, digests=json.dumps(list(digests)))
        return [UnnamedLayer(Digest(row["digest"]), row["tree_size"], row["updated_at"]) for row in rows]

    async def release(self, digests: Sequence[Digest]) -> None:
        """Record that an operator lets layers be collected that came by commits, as if they had come from registries.

        One that is announced once more counts as committed again.
        """
        await self._database.run(statements.RELEASE, digests=json.dumps(list(digests)))

    async def claim(self, digests: Sequence[Digest]) -> list[Digest]:
        """Give up the versions that name some layers; return those of the layers that nothing names any more.

        From now on such a version cannot be brought back without its layers being fetched. That the layers are being
        taken out is known until `collected` says what became of it.
        """
        async with self._database.transaction() as run:
            rows = await run(statements.CLAIMABLE, digests=json.dumps(list(digests)))
            claimed = [Digest(row["digest"]) for row in rows]
            versions = await run(statements.VERSIONS, claimed=json.dumps(claimed))
            for version in versions:
                key = {"name": version["name"], "digest": version["digest"]}
                await run(statements.GIVE_UP, **key)
                await run(DROP_DOCUMENTS, **key)
            await run(statements.COLLECT, claimed=json.dumps(claimed))
        return claimed

    async def still_unused(self, digests: Sequence[Digest]) -> list[Digest]:
        """Return those of some layers that are being taken out which no image needs that is being worked on.

        Asked in an open transaction, it is decided by this: an image that needs one later finds it gone.
        """
        rows = await self._database.run(statements.CLAIMABLE, digests=json.dumps(list(digests)))
        return [Digest(row["digest"]) for row in rows]

    async def interrupted(self) -> list[Digest]:
        """Return the layers that a publisher is taking out, or may have taken out and has not recorded."""
        return [Digest(row["digest"]) for row in await self._database.run(statements.COLLECTING)]

    async def collected(self, digests: Sequence[Digest], *, kept: Sequence[Digest] = ()) -> None:
        """Record what became of layers that were to be taken out.

        Nothing is recorded of those that an image has brought again meanwhile, or of which somebody else has recorded
        it. What the bucket has announced meanwhile is fetched.

        Parameters
        ----------
        digests
            Layers that are in the repository no more.
        kept
            Those that are.
        """
        given = json.dumps(list(digests))
        async with self._database.transaction() as run:
            await run(statements.GONE, digests=given)
            await run(statements.ANNOUNCED_MEANWHILE, digests=given)
            await run(statements.COLLECTED, digests=json.dumps([*digests, *kept]))

    async def summary(self) -> UnnamedSummary:
        """Return how much is named by nothing, whether it may go yet or not."""
        (row,) = await self._database.run(statements.SUMMARY)
        return UnnamedSummary(row["layers"], int(row["size"]))
