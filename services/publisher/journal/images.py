"""The journal of images: what was asked for, how far it is, and what became of it.

Every ask that changes what is wanted has a number. What is recorded by somebody who works for an earlier one, or has
lost its claim, has no effect, and says so, so that the work is given up.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from services.common.database.interface import Database, Run
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.publisher.journal import image_statements as statements
from services.publisher.journal.image_model import (
    UNDER_WAY,
    ImageRecord,
    ImageSelection,
    ImageState,
    ImageSummary,
    ImageWish,
)
from services.publisher.journal.image_rows import image_of, images_condition, images_summary, outputs_text

__all__ = ["Asked", "ImageJournal"]


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
    database
        The journal's, open while this is used.
    me
        The publisher that uses it, see `PublisherRecord.id`.
    """

    def __init__(self, database: Database, *, me: str) -> None:
        self._database = database
        self._me = me

    async def ask(self, wish: ImageWish) -> Asked:
        """Record that an image is wanted; the later of two asks for one name wins.

        An ask for exactly what is published, or what failed, changes nothing but what is known about it; so whoever
        asks again and again does not make a refused image be fetched again and again. One for what a tag names looks
        again, since the tag may name something else by now.
        """
        async with self._database.transaction() as run:
            known = await _known(run, wish.name)
            if known is None:
                await run(statements.INSERT, **_values(wish))
            elif done := _is_published(known, wish):
                await run(statements.CHECKED_ONE, name=wish.name)
            else:
                await _wanted_now(run, known, wish)
            record = await _known(run, wish.name)
        assert record is not None  # noqa: S101 - it is there or has just been inserted
        return Asked(record, known is not None and done)

    async def checked(self, named: Mapping[ImageName, Digest]) -> list[ImageName]:
        """Record that images are what they should be; return those that are not published with their digests."""
        rows = await self._database.run(statements.CHECKED, named=json.dumps(named))
        found = {row["name"] for row in rows}
        return [name for name in named if name not in found]

    async def retry(self, name: ImageName) -> ImageRecord | None:
        """Record that somebody asks to try a failed or published image again; return it as it is now."""
        await self._database.run(statements.RETRY, name=name)
        return await self.get(name)

    async def remove(self, name: ImageName, *, keep: float) -> ImageRecord | None:
        """Record that an image is to be removed; return it as it is now.

        Parameters
        ----------
        keep
            For how long its layers are kept afterwards, in seconds.
        """
        await self._database.run(statements.REMOVE, name=name, keep=keep)
        return await self.get(name)

    async def claim(self, *, busy: Collection[ImageName], full: Collection[str]) -> ImageRecord | None:
        """Take the image that comes first of those that are due, and make it `resolving`, or leave it `removing`.

        Its name is this publisher's until `release`, whatever else is asked for.

        Parameters
        ----------
        busy
            Names that are being worked on.
        full
            Registries that nothing more is asked of now.
        """
        rows = await self._database.run_passing(
            statements.CLAIM, me=self._me, busy=json.dumps(list(busy)), full=json.dumps(list(full))
        )
        return image_of(rows[0]) if rows else None

    async def next_due(self, *, busy: Collection[ImageName], full: Collection[str]) -> float | None:
        """Return when the next image can be claimed, in seconds since the epoch; nothing if none waits."""
        (row,) = await self._database.run(statements.NEXT_DUE, busy=json.dumps(list(busy)), full=json.dumps(list(full)))
        return None if row["due"] is None else float(row["due"])

    async def counted(self, record: ImageRecord, *, known: int, missing: int) -> None:
        """Record how many bytes of an image's layers the repository had already, and had not."""
        await self._database.run_passing(statements.COUNTED, **self._claim_of(record), known=known, missing=missing)

    async def ready(self, record: ImageRecord, *, seconds: float) -> bool:
        """Record that everything of an image is there, which took so many seconds; False if it is wanted no more."""
        rows = await self._database.run_passing(statements.READY, **self._claim_of(record), seconds=seconds)
        return bool(rows)

    async def enter(self, record: ImageRecord) -> bool:
        """Record that an image, or its removal, is part of the transaction; False if it is wanted no more."""
        rows = await self._database.run_passing(statements.ENTER, **self._claim_of(record))
        return bool(rows)

    async def leave(self, records: Iterable[ImageRecord]) -> None:
        """Record that images are not part of a transaction yet: none could be opened."""
        await self._database.run_passing(statements.LEAVE_TRANSACTION, me=self._me, asks=_asks(records))

    async def failed(self, record: ImageRecord, reason: str, *, due: float) -> bool:
        """Record that an image, or its removal, failed alone, and when it is tried again; False if it is another's."""
        return bool(await self._database.run(statements.FAILED, **self._claim_of(record), reason=reason, due=due))

    async def refused(self, record: ImageRecord, reason: str, *, due: float | None) -> bool:
        """Record that an image is at fault itself, or its removal cannot be done; False if it is another's.

        Parameters
        ----------
        due
            When it is looked at once more; None for never. A removal never is.
        """
        return bool(await self._database.run(statements.REFUSED, **self._claim_of(record), reason=reason, due=due))

    async def failed_together(self, records: Iterable[ImageRecord], reason: str, *, due: float, share: int) -> None:
        """Record that a batch failed, nobody knows by which unit: its images are tried again in smaller batches."""
        await self._database.run(
            statements.FAILED_TOGETHER, me=self._me, asks=_asks(records), reason=reason, due=due, share=share
        )

    async def widen(self) -> None:
        """Let waiting images be part of batches twice as large: one that failed has just been published."""
        await self._database.run(statements.WIDEN)

    async def release(self, names: Iterable[ImageName]) -> None:
        """Let go of names that this publisher has claimed, so that anybody may claim them for what is wanted now."""
        await self._database.run(statements.RELEASE, me=self._me, names=json.dumps(list(names)))

    async def give_back(self, records: Iterable[ImageRecord]) -> None:
        """Let anybody claim images that this publisher has claimed, and begin with them anew."""
        await self._database.run(statements.GIVE_BACK, me=self._me, asks=_asks(records))

    async def claimed(self, names: Iterable[ImageName]) -> list[ImageRecord]:
        """Look up those of some images that this publisher has claimed."""
        rows = await self._database.run(statements.CLAIMED, me=self._me, names=json.dumps(list(names)))
        return [image_of(row) for row in rows]

    async def get(self, name: ImageName) -> ImageRecord | None:
        """Look up one image."""
        rows = await self._database.run(statements.GET, name=name)
        return image_of(rows[0]) if rows else None

    async def page(self, selection: ImageSelection, *, after: str, limit: int) -> list[ImageRecord]:
        """List images in the order of their names, those after a given one."""
        conditions, chosen = images_condition(selection)
        rows = await self._database.run(statements.page(*conditions), **chosen, after=after, limit=limit)
        return [image_of(row) for row in rows]

    async def recent_failures(self, limit: int) -> list[ImageRecord]:
        """List failed images, those first that failed last."""
        rows = await self._database.run(statements.RECENT_FAILURES, limit=limit)
        return [image_of(row) for row in rows]

    async def summary(self) -> ImageSummary:
        """Count the images in each state, and find the one that has waited longest."""
        rows = await self._database.run(statements.SUMMARY)
        return images_summary(rows)

    def _claim_of(self, record: ImageRecord) -> dict[str, Any]:
        return {"me": self._me, "name": record.name, "ask": record.ask}


async def _known(run: Run, name: ImageName) -> ImageRecord | None:
    """Look up one image in a transaction that changes it."""
    rows = await run(statements.GET_LOCKED, name=name)
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
            await run(statements.ASK_ALIKE, **values, again=int(begun))
            return
    await run(statements.ASK_ANEW, **values)


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
    }


def _asks(records: Iterable[ImageRecord]) -> str:
    return json.dumps({record.name: record.ask for record in records})
