"""The journal of flat images, and of images in podman's stores, by the configurations that name them.

A root file system outlives the name that led to it, since what runs from it has resolved the name. `flats.named_last`
is written as that of layers is: None while a visible version has the flat image, else until when the last that had it
is kept. Periods by the clock and of the publisher's own running time must have passed before one goes, as for layers.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.common.database.interface import Database, Run
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.publisher.journal import flat_statements as statements
from services.publisher.journal.image_model import ImageVersion

__all__ = ["FlatJournal", "UnnamedFlat", "name_flats", "plan_flats", "report_flats", "set_named_last"]


@dataclass(frozen=True, slots=True)
class UnnamedFlat:
    """A flat image that may go."""

    config: Digest
    """SHA-256 of its configuration."""
    named_last: float
    """Until when a name led to it, or it was kept for versions that had it; in seconds since the epoch."""


class FlatJournal:
    """The flat images that the publisher has made.

    Parameters
    ----------
    database
        The journal's, open while this is used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> frozenset[Digest]:
        """Return the flat images that have been made, and not been collected."""
        return frozenset(Digest(row["config"]) for row in await self._database.run(statements.ALL))

    async def reports(self, name: ImageName, digest: Digest) -> dict[Digest, Any]:
        """Return what people must know of the flat images that a version has, as `report_flats` was told."""
        rows = await self._database.run(statements.REPORTS, name=name, digest=digest)
        return {Digest(row["config"]): json.loads(row["report"]) for row in rows}

    async def look(self) -> None:
        """Take note of which flat images no name leads to; the look at layers counts the time."""
        async with self._database.transaction() as run:
            await run(statements.FORGET_WATCHED)
            await run(statements.WATCH)

    async def due(self, *, after: float, seen: float, limit: int) -> list[UnnamedFlat]:
        """Return flat images that may go, those first that nothing has led to for longest.

        Parameters
        ----------
        after
            Seconds since something last led to them, by the clock.
        seen
            Seconds of its own running time in which the publisher has seen nothing lead to them.
        limit
            Most of them.
        """
        rows = await self._database.run(statements.DUE, after=after, seen=seen, limit=limit)
        return [UnnamedFlat(Digest(row["config"]), row["named_last"]) for row in rows]

    async def still_due(self, flats: Iterable[UnnamedFlat]) -> list[Digest]:
        """Return those of the flat images to which nothing has led since they were found, or may lead soon.

        Asked in an open transaction, it is decided by this: an image that needs one later makes it anew.
        """
        rows = await self._database.run(
            statements.STILL_DUE, due=json.dumps({flat.config: flat.named_last for flat in flats})
        )
        return [Digest(row["config"]) for row in rows]

    async def collected(self, configs: Sequence[Digest]) -> None:
        """Record that flat images are in the repository no more, but for those that somebody has made anew since."""
        async with self._database.transaction() as run:
            rows = await run(statements.STILL_UNNAMED, configs=json.dumps(list(configs)))
            for delete in statements.COLLECTED:
                await run(delete, configs=json.dumps([row["config"] for row in rows]))


async def plan_flats(run: Run, version: ImageVersion) -> None:
    """Record which flat images a version is to have, in the transaction that records what it is."""
    if version.shown:
        flats = json.dumps(sorted(version.shown))
        await run(statements.ADD_FLATS_OF_VERSION, name=version.name, digest=version.digest, flats=flats)


async def name_flats(run: Run, version: ImageVersion) -> set[str]:
    """Record which flat images a version has, in the transaction that makes it visible; return those it had besides."""
    key = {"name": version.name, "digest": version.digest}
    flats = json.dumps(sorted(version.shown))
    gone = await run(statements.DROP_OTHER_FLATS, **key, flats=flats)
    await run(statements.ADD_FLATS, flats=flats)
    await run(statements.ADD_FLATS_OF_VERSION, **key, flats=flats)
    return {row["config"] for row in gone}


async def report_flats(run: Run, reports: Mapping[Digest, object]) -> None:
    """Record what people must know of flat images that have been made, in the transaction that makes them visible.

    Parameters
    ----------
    reports
        Documents by configurations.
    """
    for config, report in reports.items():
        await run(statements.REPORT_FLAT, config=config, report=json.dumps(report))


async def set_named_last(run: Run, flats: Iterable[str], *, keep: float) -> None:
    """Record until when flat images are kept, in the transaction that changes which versions are visible.

    Parameters
    ----------
    keep
        For how long those stay that no version has any more, in seconds.
    """
    await run(statements.NAME_FLATS, flats=json.dumps(sorted(flats)), keep=keep)
