"""The journal of its publishers: who works with it, each for as long as it renews its lease.

All times are by the database's clock, so that the clock of no publisher's machine matters. A publisher whose lease has
run out keeps what it has claimed until another one says that it has gone: what it was late for has harmed nobody then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from services.common.database.interface import Database
from services.common.digest import Digest
from services.publisher.errors import LeaseLostError
from services.publisher.journal import image_statements, layer_statements
from services.publisher.journal import publisher_statements as statements
from services.publisher.journal.image_model import ImageRecord
from services.publisher.journal.image_rows import image_of

__all__ = ["LEASE", "Leavings", "PublisherJournal", "PublisherRecord", "Renewal"]

_log = structlog.get_logger(__name__)

LEASE: Final = 15.0
"""Seconds for which a publisher that says nothing keeps what it has claimed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherRecord:
    """One publisher. Times are seconds since the epoch."""

    id: str
    """Made anew whenever it is started."""
    name: str
    """What people call it."""
    started_at: float
    seen_at: float
    """When it renewed its lease last."""
    leads: bool
    """Whether it does what one publisher does for all, as sweeps and collections."""
    gone: bool
    """Whether it has ended, or its lease has run out."""
    ended: bool
    """Whether it has gone in order: it was stopped before its lease had run out, and has left nothing undone."""
    layers: int
    """Layers that it has claimed."""
    images: int
    """Images that it has claimed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What a publisher is told when it renews its lease."""

    abandoned: bool
    """Whether there may be something that a publisher has left which has gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leavings:
    """What publishers have left that have gone; all else that they had claimed is free."""

    verified: Sequence[Digest]
    """Layers whose archives somebody has, who may have been at work on this machine."""
    publishing: Sequence[ImageRecord]
    """Images that they may have published. They are this publisher's until it gives them back."""


class PublisherJournal:
    """The publishers that work with a journal.

    Parameters
    ----------
    database
        The journal's, open while this is used.
    me
        This publisher's `PublisherRecord.id`.
    alone
        As of `Journal`.
    """

    def __init__(self, database: Database, *, me: str, alone: bool) -> None:
        self._database = database
        self._me = me
        self._others = {"me": me, "alone": int(alone)}

    async def enter(self, *, name: str, lease: float = LEASE) -> None:
        """Record that this publisher works with the journal; it must `renew` from now on.

        Those that have gone for a day are forgotten.

        Parameters
        ----------
        name
            As in `PublisherRecord`.
        lease
            Seconds after which it counts as gone if it does not renew its lease.

        Raises
        ------
        JournalError
            The journal failed.
        """
        async with self._database.transaction() as run:
            await run(statements.FORGET)
            await run(statements.ENTER, me=self._me, name=name, lease=lease)
            if not self._database.shared:
                # Where the journal is a file, the lock of the state says that nobody else works with it.
                await run(statements.OTHERS_GONE, me=self._me)

    async def renew(self, *, leads: bool = False, lease: float = LEASE) -> Renewal:
        """Renew this publisher's lease, ahead of whatever else waits for the database.

        Parameters
        ----------
        leads
            As in `PublisherRecord`.
        lease
            As of `enter`.

        Raises
        ------
        LeaseLostError
            Another publisher says that this one has gone, and has taken over what it had claimed.
        JournalError
            The journal failed.
        """
        rows = await self._database.run_ahead(statements.RENEW, me=self._me, leads=int(leads), lease=lease)
        if not rows:
            raise LeaseLostError(
                "this publisher's lease has run out, since it could not renew it in time, and others go on with its "
                "work: start it again, it takes part under a new identity then"
            )
        return Renewal(abandoned=bool(rows[0]["abandoned"]))

    async def take_over(self) -> Leavings:
        """Make free what publishers have claimed that have gone, and say of those that are silent that they have.

        Raises
        ------
        JournalError
            The journal failed.
        """
        async with self._database.transaction() as run:
            expired = await run(statements.EXPIRE, me=self._me)
            verified = await run(layer_statements.WERE_VERIFIED)
            await run(layer_statements.INTERRUPTED, **self._others)
            publishing = await run(image_statements.TAKE_OVER, **self._others)
            await run(image_statements.INTERRUPTED, **self._others)
        for row in expired:
            _log.warning("a publisher has gone, its work is taken over", publisher=row["id"], name=row["name"])
        return Leavings(
            verified=[Digest(row["digest"]) for row in verified], publishing=[image_of(row) for row in publishing]
        )

    async def leave(self) -> None:
        """Record that this publisher has ended its work; what it had claimed is free at once.

        Raises
        ------
        JournalError
            The journal failed.
        """
        async with self._database.transaction() as run:
            await run(layer_statements.LEAVE, me=self._me)
            await run(image_statements.LEAVE, me=self._me)
            await run(statements.LEAVE, me=self._me)

    async def list(self) -> Sequence[PublisherRecord]:
        """Return the publishers, those included that have gone within the last day, in the order of their starts."""
        rows = await self._database.run(statements.LIST)
        return [
            PublisherRecord(
                id=row["id"],
                name=row["name"],
                started_at=row["started_at"],
                seen_at=row["seen_at"],
                leads=bool(row["leads"]),
                gone=bool(row["gone"]),
                ended=bool(row["ended"]),
                layers=row["layers"],
                images=row["images"],
            )
            for row in rows
        ]
