"""The journal of flat images, and of images in podman's stores, by the configurations that name them.

A root file system outlives the name that led to it, since what runs from it has resolved the name. `flats.named_last`
is written as that of layers is: None while a visible version has the flat image, else until when the last that had it
is kept. Periods by the clock and of the publisher's own running time must have passed before one goes, as for layers.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.sqlite_file import Run
from services.publisher.journal.file import JournalFile
from services.publisher.journal.image_model import ImageVersion

__all__ = ["FlatJournal", "UnnamedFlat", "name_flats", "report_flats", "set_named_last"]

_NAMED_LAST = """
    UPDATE flats SET named_last = (
        SELECT CASE WHEN max(visible) THEN NULL ELSE coalesce(max(until), :now + :keep) END FROM (
            SELECT replaced_at IS NULL AND removed_at IS NULL AS visible,
                max(coalesce(keep_until, 0), coalesce(removed_at, replaced_at, 0)) AS until
            FROM version_flats JOIN image_versions USING (name, digest)
            WHERE config = flats.config AND published_at IS NOT NULL AND collected_at IS NULL
        )
    )
    WHERE config IN (SELECT value FROM json_each(:flats)) RETURNING 1
"""


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
    file
        The journal's file, open while this is used.
    """

    def __init__(self, file: JournalFile) -> None:
        self._file = file

    async def all(self) -> frozenset[Digest]:
        """Return the flat images that have been made, and not been collected."""
        return frozenset(Digest(row["config"]) for row in await self._file.run("SELECT config FROM flats"))

    async def reports(self, name: ImageName, digest: Digest) -> dict[Digest, Any]:
        """Return what people must know of the flat images that a version has, as `report_flats` was told."""
        rows = await self._file.run(
            """
            SELECT config, report FROM version_flats JOIN flats USING (config)
            WHERE name = :name AND digest = :digest AND report IS NOT NULL ORDER BY config
            """,
            name=name,
            digest=digest,
        )
        return {Digest(row["config"]): json.loads(row["report"]) for row in rows}

    async def look(self) -> None:
        """Take note of which flat images no name leads to; the look at layers counts the time."""
        async with self._file.transaction() as run:
            await run(
                """
                DELETE FROM watched_flats WHERE NOT EXISTS (
                    SELECT 1 FROM flats WHERE config = watched_flats.config AND named_last = watched_flats.named_last
                ) RETURNING 1
                """
            )
            await run(
                """
                INSERT OR IGNORE INTO watched_flats
                SELECT config, named_last, seconds FROM flats, watch WHERE named_last IS NOT NULL RETURNING 1
                """
            )

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
        rows = await self._file.run(
            """
            SELECT config, flats.named_last FROM flats JOIN watched_flats USING (config), watch
            WHERE flats.named_last = watched_flats.named_last AND flats.named_last + :after <= :now
                AND seconds - since >= :seen
            ORDER BY flats.named_last, config LIMIT :limit
            """,
            after=after,
            seen=seen,
            limit=limit,
        )
        return [UnnamedFlat(Digest(row["config"]), row["named_last"]) for row in rows]

    async def still_due(self, flats: Iterable[UnnamedFlat]) -> list[Digest]:
        """Return those of the flat images to which nothing has led since they were found; in a publisher's turn."""
        rows = await self._file.run(
            "SELECT config FROM flats JOIN json_each(:due) AS due ON config = due.key AND named_last = due.value",
            due=json.dumps({flat.config: flat.named_last for flat in flats}),
        )
        return [Digest(row["config"]) for row in rows]

    async def collected(self, configs: Sequence[Digest]) -> None:
        """Record that flat images are in the repository no more."""
        async with self._file.transaction() as run:
            for table in ("version_flats", "watched_flats", "flats"):
                await run(
                    f"DELETE FROM {table} WHERE config IN (SELECT value FROM json_each(:configs)) RETURNING 1",  # noqa: S608 - one of three names
                    configs=json.dumps(list(configs)),
                )


async def name_flats(run: Run, version: ImageVersion) -> set[str]:
    """Record which flat images a version has, in the transaction that makes it visible; return those it had besides."""
    key = {"name": version.name, "digest": version.digest}
    flats = json.dumps(sorted(version.shown))
    gone = await run(
        """
        DELETE FROM version_flats WHERE name = :name AND digest = :digest
            AND config NOT IN (SELECT value FROM json_each(:flats)) RETURNING config
        """,
        **key,
        flats=flats,
    )
    await run("INSERT OR IGNORE INTO flats (config) SELECT value FROM json_each(:flats) RETURNING 1", flats=flats)
    await run(
        "INSERT OR IGNORE INTO version_flats SELECT :name, :digest, value FROM json_each(:flats) RETURNING 1",
        **key,
        flats=flats,
    )
    return {row["config"] for row in gone}


async def report_flats(run: Run, reports: Mapping[Digest, object]) -> None:
    """Record what people must know of flat images that have been made, in the transaction that makes them visible.

    Parameters
    ----------
    reports
        Documents by configurations.
    """
    for config, report in reports.items():
        await run(
            "UPDATE flats SET report = :report WHERE config = :config RETURNING 1",
            config=config,
            report=json.dumps(report),
        )


async def set_named_last(run: Run, flats: Iterable[str], *, keep: float) -> None:
    """Record until when flat images are kept, in the transaction that changes which versions are visible.

    Parameters
    ----------
    keep
        For how long those stay that no version has any more, in seconds.
    """
    await run(_NAMED_LAST, flats=json.dumps(sorted(flats)), keep=keep)
