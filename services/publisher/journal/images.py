"""The journal of images: what was asked for, how far it is, and what became of it.

Every ask that changes what is wanted has a number. What is recorded by somebody who works for an earlier one has no
effect, and says so, so that the work is given up.
"""

import json
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.sqlite_file import Run
from services.publisher.journal.file import JournalFile
from services.publisher.journal.image_model import (
    UNDER_WAY,
    ImageRecord,
    ImageSelection,
    ImageState,
    ImageSummary,
    ImageWish,
)
from services.publisher.journal.image_rows import (
    IMAGE_COLUMNS,
    image_of,
    images_condition,
    images_summary,
    outputs_text,
)

__all__ = ["Asked", "ImageJournal"]

_WAITING = "(state IN ('asked', 'removing') OR (state = 'failed' AND (retryable OR due > 0)))"
"""A refused image waits as well if it is due at some time: what is wrong with it may be mended by then."""
_NEW_ASK = """
    state = 'asked', ask = ask + 1, again = 0, digest = NULL, attempts = 0, share = NULL, reason = NULL, retryable = 0,
    due = 0, bytes_known = NULL, bytes_missing = NULL, resolving = NULL, fetching = NULL, publishing = NULL,
    asked_at = :now, updated_at = :now
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What an ask came to."""

    record: ImageRecord
    done: bool
    """Whether what is wanted is published already."""


class ImageJournal:
    """The images that the publisher knows.

    Parameters
    ----------
    file
        The journal's file, open while this is used.
    """

    def __init__(self, file: JournalFile) -> None:
        self._file = file

    async def ask(self, wish: ImageWish) -> Asked:
        """Record that an image is wanted; the later of two asks for one name wins.

        An ask for exactly what is published, or what failed, changes nothing but what is known about it; so whoever
        asks again and again does not make a refused image be fetched again and again. One for what a tag names looks
        again, since the tag may name something else by now.
        """
        async with self._file.transaction() as run:
            known = await _get(run, wish.name)
            if known is None:
                await _insert(run, wish)
            elif done := _is_published(known, wish):
                await run(
                    "UPDATE images SET checked_at = :now, updated_at = :now WHERE name = :name RETURNING 1",
                    name=wish.name,
                )
            else:
                await _wanted_now(run, known, wish)
            record = await _get(run, wish.name)
        assert record is not None  # noqa: S101 - it is there or has just been inserted
        return Asked(record, known is not None and done)

    async def checked(self, named: Mapping[ImageName, Digest]) -> list[ImageName]:
        """Record that images are what they should be; return those that are not published with their digests."""
        rows = await self._file.run(
            """
            UPDATE images SET checked_at = :now
            WHERE state = 'published' AND (name, published) IN (SELECT key, value FROM json_each(:named))
            RETURNING name
            """,
            named=json.dumps(named),
        )
        found = {row["name"] for row in rows}
        return [name for name in named if name not in found]

    async def retry(self, name: ImageName) -> ImageRecord | None:
        """Record that somebody asks to try a failed or published image again; return it as it is now."""
        await self._file.run(
            """
            UPDATE images SET state = 'asked', retryable = 0, due = 0, updated_at = :now,
                asked_at = CASE state WHEN 'published' THEN :now ELSE asked_at END
            WHERE name = :name AND state IN ('failed', 'published') RETURNING 1
            """,
            name=name,
        )
        return await self.get(name)

    async def remove(self, name: ImageName, *, keep: float) -> ImageRecord | None:
        """Record that an image is to be removed; return it as it is now.

        Parameters
        ----------
        keep
            For how long its layers are kept afterwards, in seconds.
        """
        await self._file.run(
            f"""
            UPDATE images SET {_NEW_ASK.replace("'asked'", "'removing'")}, keep = :keep
            WHERE name = :name AND state NOT IN ('removing', 'removed') RETURNING 1
            """,  # noqa: S608 - constants of this module
            name=name,
            keep=keep,
        )
        return await self.get(name)

    async def claim(self, *, busy: Collection[ImageName], full: Collection[str]) -> ImageRecord | None:
        """Take the image that comes first of those that are due, and make it `resolving`, or leave it `removing`.

        Parameters
        ----------
        busy
            Names that are being worked on.
        full
            Registries that nothing more is asked of now.
        """
        rows = await self._file.run_passing(
            f"""
            UPDATE images SET state = CASE state WHEN 'removing' THEN state ELSE 'resolving' END, retryable = 0,
                updated_at = :now
            WHERE name = (
                SELECT name FROM images WHERE {_WAITING} AND due <= :now
                    AND name NOT IN (SELECT value FROM json_each(:busy))
                    AND (state = 'removing' OR registry NOT IN (SELECT value FROM json_each(:full)))
                ORDER BY priority DESC, asked_at, name LIMIT 1
            ) RETURNING {IMAGE_COLUMNS}
            """,  # noqa: S608 - constants of this package
            busy=json.dumps(list(busy)),
            full=json.dumps(list(full)),
        )
        return image_of(rows[0]) if rows else None

    async def next_due(self, *, busy: Collection[ImageName], full: Collection[str]) -> float | None:
        """Return when the next image can be claimed, in seconds since the epoch; nothing if none waits."""
        (row,) = await self._file.run(
            f"""
            SELECT min(due) FROM images WHERE {_WAITING} AND name NOT IN (SELECT value FROM json_each(:busy))
                AND (state = 'removing' OR registry NOT IN (SELECT value FROM json_each(:full)))
            """,  # noqa: S608 - as above
            busy=json.dumps(list(busy)),
            full=json.dumps(list(full)),
        )
        return None if row[0] is None else float(row[0])

    async def counted(self, record: ImageRecord, *, known: int, missing: int) -> None:
        """Record how many bytes of an image's layers the repository had already, and had not."""
        await self._file.run_passing(
            """
            UPDATE images SET bytes_known = :known, bytes_missing = :missing, updated_at = :now
            WHERE name = :name AND ask = :ask RETURNING 1
            """,
            name=record.name,
            ask=record.ask,
            known=known,
            missing=missing,
        )

    async def ready(self, record: ImageRecord, *, seconds: float) -> bool:
        """Record that everything of an image is there, which took so many seconds; False if it is wanted no more."""
        rows = await self._file.run_passing(
            """
            UPDATE images SET state = 'ready', fetching = :seconds, updated_at = :now
            WHERE name = :name AND ask = :ask RETURNING 1
            """,
            name=record.name,
            ask=record.ask,
            seconds=seconds,
        )
        return bool(rows)

    async def enter(self, record: ImageRecord) -> bool:
        """Record that an image, or its removal, is part of the transaction; False if it is wanted no more."""
        rows = await self._file.run_passing(
            """
            UPDATE images SET state = CASE state WHEN 'removing' THEN state ELSE 'publishing' END, updated_at = :now
            WHERE name = :name AND ask = :ask RETURNING 1
            """,
            name=record.name,
            ask=record.ask,
        )
        return bool(rows)

    async def leave(self, records: Iterable[ImageRecord]) -> None:
        """Record that images are not part of a transaction yet: none could be opened."""
        await self._file.run_passing(
            """
            UPDATE images SET state = 'ready', updated_at = :now
            WHERE state = 'publishing' AND (name, ask) IN (SELECT key, value FROM json_each(:asks)) RETURNING 1
            """,
            asks=_asks(records),
        )

    async def failed(self, record: ImageRecord, reason: str, *, due: float) -> None:
        """Record that an image, or its removal, failed alone, and when it is tried again."""
        await self._file.run(
            """
            UPDATE images SET reason = :reason, state = CASE state WHEN 'removing' THEN state ELSE 'failed' END,
                retryable = 1, due = :due, attempts = attempts + 1, updated_at = :now
            WHERE name = :name AND ask = :ask RETURNING 1
            """,
            name=record.name,
            ask=record.ask,
            reason=reason,
            due=due,
        )

    async def refused(self, record: ImageRecord, reason: str, *, due: float | None) -> None:
        """Record that an image is at fault itself, or its removal cannot be done.

        Parameters
        ----------
        due
            When it is looked at once more; None for never. A removal never is.
        """
        await self._file.run(
            """
            UPDATE images SET reason = :reason, due = CASE state WHEN 'removing' THEN 0 ELSE coalesce(:due, 0) END,
                state = 'failed', retryable = 0, attempts = attempts + 1, updated_at = :now
            WHERE name = :name AND ask = :ask RETURNING 1
            """,
            name=record.name,
            ask=record.ask,
            reason=reason,
            due=due,
        )

    async def failed_together(self, records: Iterable[ImageRecord], reason: str, *, due: float, share: int) -> None:
        """Record that a batch failed, nobody knows by which unit: its images are tried again in smaller batches."""
        await self._file.run(
            """
            UPDATE images SET state = CASE state WHEN 'removing' THEN state ELSE 'failed' END, retryable = 1,
                reason = :reason, due = :due, share = :share, updated_at = :now
            WHERE (name, ask) IN (SELECT key, value FROM json_each(:asks)) RETURNING 1
            """,
            asks=_asks(records),
            reason=reason,
            due=due,
            share=share,
        )

    async def widen(self) -> None:
        """Let waiting images be part of batches twice as large: one that failed has just been published."""
        await self._file.run("UPDATE images SET share = share * 2 WHERE state = 'failed' AND share < 1024 RETURNING 1")

    async def publishing(self) -> tuple[ImageRecord, ...]:
        """Return the images that are part of the transaction that is, or was, under way."""
        rows = await self._file.run(f"SELECT {IMAGE_COLUMNS} FROM images WHERE state = 'publishing'")  # noqa: S608
        return tuple(map(image_of, rows))

    async def interrupted(self) -> None:
        """Make what an earlier publisher was working on `asked` again."""
        await self._file.run(
            """
            UPDATE images SET state = 'asked', due = 0, updated_at = :now
            WHERE state IN (SELECT value FROM json_each(:states)) RETURNING 1
            """,
            states=json.dumps(UNDER_WAY),
        )

    async def get(self, name: ImageName) -> ImageRecord | None:
        """Look up one image."""
        return await _get(self._file.run, name)

    async def page(self, selection: ImageSelection, *, after: str, limit: int) -> list[ImageRecord]:
        """List images in the order of their names, those after a given one."""
        condition, chosen = images_condition(selection)
        rows = await self._file.run(
            f"SELECT {IMAGE_COLUMNS} FROM images WHERE {condition} AND name > :after ORDER BY name LIMIT :limit",  # noqa: S608
            **chosen,
            after=after,
            limit=limit,
        )
        return [image_of(row) for row in rows]

    async def recent_failures(self, limit: int) -> list[ImageRecord]:
        """List failed images, those first that failed last."""
        rows = await self._file.run(
            f"""
            SELECT {IMAGE_COLUMNS} FROM images WHERE state = 'failed' ORDER BY updated_at DESC, name LIMIT :limit
            """,  # noqa: S608 - a constant
            limit=limit,
        )
        return [image_of(row) for row in rows]

    async def summary(self) -> ImageSummary:
        """Count the images in each state, and find the one that has waited longest."""
        rows = await self._file.run("SELECT state, retryable, count(*), min(asked_at) FROM images GROUP BY 1, 2")
        return images_summary(tuple(row) for row in rows)


async def _get(run: Run, name: ImageName) -> ImageRecord | None:
    rows = await run(f"SELECT {IMAGE_COLUMNS} FROM images WHERE name = :name", name=name)  # noqa: S608
    return image_of(rows[0]) if rows else None


def _is_published(known: ImageRecord, wish: ImageWish) -> bool:
    return (
        known.state is ImageState.PUBLISHED
        and wish.digest is not None
        and known.published == wish.digest
        and known.platforms == wish.platforms
        and known.verified == wish.verified
        and known.outputs == wish.outputs
    )


def _is_same(known: ImageRecord, wish: ImageWish) -> bool:
    """Whether an ask is for what was asked for, or has been found, before."""
    same = all(
        getattr(known, name) == getattr(wish, name) for name in ("platforms", "reference", "verified", "outputs")
    )
    return same and wish.digest in ((known.asked,) if wish.digest is None else (known.asked, known.digest))


async def _wanted_now(run: Run, known: ImageRecord, wish: ImageWish) -> None:
    """Record an ask for an image that is known, and not published as it is wanted."""
    values = _values(wish)
    if known.state in (ImageState.ASKED, *UNDER_WAY, ImageState.FAILED) and _is_same(known, wish):
        begun = wish.digest is None and known.state not in (ImageState.ASKED, ImageState.RESOLVING)
        if not (begun and known.state is ImageState.FAILED):
            # What is wanted is on its way already; what a tag names is looked at once more afterwards.
            await run(
                """
                UPDATE images SET priority = :priority, project = :project, keep = :keep, updated_at = :now,
                    asked = coalesce(:asked, asked), again = max(again, :again) WHERE name = :name RETURNING 1
                """,
                **values,
                again=begun,
            )
            return
    await run(
        f"""
        UPDATE images SET {_NEW_ASK}, registry = :registry, reference = :reference, asked = :asked,
            platforms = :platforms, verified = :verified, outputs = :outputs, priority = :priority,
            project = :project, keep = :keep
        WHERE name = :name RETURNING 1
        """,  # noqa: S608 - constants of this module
        **values,
    )


async def _insert(run: Run, wish: ImageWish) -> None:
    await run(
        """
        INSERT INTO images (name, registry, reference, asked, platforms, project, priority, verified, keep, outputs,
            state, asked_at, updated_at)
        VALUES (:name, :registry, :reference, :asked, :platforms, :project, :priority, :verified, :keep, :outputs,
            'asked', :now, :now) RETURNING 1
        """,
        **_values(wish),
    )


def _values(wish: ImageWish) -> dict[str, Any]:
    return {
        "name": wish.name,
        "registry": wish.name.registry,
        "reference": wish.reference,
        "asked": wish.digest,
        "platforms": json.dumps(wish.platforms),
        "project": wish.project,
        "priority": wish.priority,
        "verified": None if wish.verified is None else json.dumps(wish.verified),
        "keep": wish.keep,
        "outputs": outputs_text(wish.outputs),
        "now": time.time(),
    }


def _asks(records: Iterable[ImageRecord]) -> str:
    return json.dumps({record.name: record.ask for record in records})
