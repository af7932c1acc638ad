"""The journal: a database, one statement per change.

A change is on the disk when the call returns, but for the states that a layer passes through on its way: whatever they
are, a publisher that is started begins with such a layer anew. What became of a layer, and what was announced, lasts.
"""

import json
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from services.common.database.interface import Database, Row, Statement
from services.common.digest import Digest
from services.publisher.journal import layer_statements as statements
from services.publisher.journal.flats import FlatJournal
from services.publisher.journal.images import ImageJournal
from services.publisher.journal.model import LayerRecord, LayerState, Moment, Pause, Selection, Summary
from services.publisher.journal.publishers import PublisherJournal
from services.publisher.journal.rows import condition_of, record_of, summary_of
from services.publisher.journal.unnamed import UnnamedJournal
from services.publisher.journal.versions import VersionJournal
from services.repository.interface import OwnTransaction

__all__ = ["Journal"]

_UNKNOWN: Final[Mapping[Digest, int]] = {}
_NOTHING: Final[Mapping[Digest, Sequence[str]]] = {}
_NOTES: Final = 20
"""Notes of a layer that are recorded: enough to see what it is about."""


class Journal:
    """The layers that publishers know, and their transactions, as one publisher writes it.

    What a publisher says of a layer has an effect only as long as it has claimed it. A method that says something of
    layers returns those of which that has been so; others are somebody else's by now, and nothing has been lost.

    Parameters
    ----------
    database
        Where it is; it is opened and closed with the journal.
    alone
        Whether nobody else works while this publisher does, so that whatever others have claimed is left over.
    """

    def __init__(self, database: Database, *, alone: bool = True) -> None:
        self._database = database
        self._me = secrets.token_hex(8)
        self._others = {"me": self._me, "alone": int(alone)}
        self.publishers = PublisherJournal(self._database, me=self._me, alone=alone)
        """The publishers."""
        self.images = ImageJournal(self._database, me=self._me)
        """The images."""
        self.versions = VersionJournal(self._database, me=self._me)
        """What their names have named."""
        self.unnamed = UnnamedJournal(self._database)
        """What they name no more."""
        self.flats = FlatJournal(self._database)
        """Their flat images."""

    async def __aenter__(self) -> Self:
        """Open the database.

        Raises
        ------
        JournalError
            It holds no journal, was written by a newer publisher, or cannot be opened.
        """
        await self._database.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the database."""
        await self._database.__aexit__(kind, error, trace)

    @property
    def publisher(self) -> str:
        """Which publisher this is, see `PublisherRecord.id`."""
        return self._me

    @property
    def shared(self) -> bool:
        """Whether others may write into it."""
        return self._database.shared

    async def announce(self, digests: Iterable[Digest]) -> int:
        """Record layers as announced: new ones, and failed ones once more. Others stay what they are.

        Returns
        -------
        int
            How many there are to work on that were not before.
        """
        return await self._announce(statements.ANNOUNCE, digests)

    async def announce_found(self, digests: Iterable[Digest]) -> int:
        """Record layers that a sweep found: as `announce`, but ones that were refused for good stay so."""
        return await self._announce(statements.ANNOUNCE_FOUND, digests)

    async def _announce(self, announce: Statement, digests: Iterable[Digest]) -> int:
        given = json.dumps(list(digests))
        await self._database.run(statements.COMMITTED, digests=given)
        return len(await self._database.run(announce, digests=given))

    async def restart(self, digest: Digest) -> LayerRecord | None:
        """Record that somebody asks to try a failed or published layer again; return it as it is now."""
        await self._database.run(statements.RESTART, digest=digest)
        return await self.get(digest)

    async def restart_failed(self) -> int:
        """Record that somebody asks to try every failed layer again; return how many there are."""
        restarted = await self._database.run(statements.RESTART_FAILED)
        return len(restarted)

    async def claim(self, *, busy: Collection[Digest] = ()) -> LayerRecord | None:
        """Take the layer that has waited longest of those that are due, and make it `fetching`.

        Parameters
        ----------
        busy
            Layers that are on their way for images.
        """
        rows = await self._database.run_passing(statements.CLAIM, me=self._me, busy=json.dumps(list(busy)))
        return record_of(rows[0]) if rows else None

    async def next_due(self, *, busy: Collection[Digest] = ()) -> float | None:
        """Return when the next layer can be claimed, in seconds since the epoch; nothing if none waits."""
        (row,) = await self._database.run(statements.NEXT_DUE, busy=json.dumps(list(busy)))
        return None if row["due"] is None else float(row["due"])

    async def advance(self, digests: Iterable[Digest], state: LayerState) -> frozenset[Digest]:
        """Move layers to a state that they pass through; after a loss of power it may be the one before."""
        given = json.dumps(list(digests))
        return _held(await self._database.run_passing(statements.ADVANCE, me=self._me, digests=given, state=state))

    async def held(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        """Return those of some layers that this publisher has claimed."""
        return _held(await self._database.run(statements.HELD, me=self._me, digests=json.dumps(list(digests))))

    async def give_back(self, digests: Iterable[Digest]) -> None:
        """Let anybody claim layers that this publisher has claimed."""
        await self._database.run(statements.GIVE_BACK, me=self._me, digests=json.dumps(list(digests)))

    async def verified(self, digest: Digest, *, archive_size: int) -> bool:
        """Record that a layer's archive, of so many bytes, is in the spool; False if the layer is another's."""
        rows = await self._database.run_passing(
            statements.VERIFIED, me=self._me, digest=digest, archive_size=archive_size
        )
        return bool(rows)

    async def published(
        self,
        digests: Iterable[Digest],
        revision: int | None,
        *,
        tree_sizes: Mapping[Digest, int] = _UNKNOWN,
        notes: Mapping[Digest, Sequence[str]] = _NOTHING,
    ) -> frozenset[Digest]:
        """Record layers as published.

        Parameters
        ----------
        digests
            The layers.
        revision
            The revision that brought them, where that is known.
        tree_sizes
            Bytes of their files, of those that were unpacked now.
        notes
            What of them could not be kept; of each the first few are recorded.
        """
        rows = await self._database.run(
            statements.PUBLISHED,
            me=self._me,
            digests=json.dumps(list(digests)),
            revision=revision,
            sizes=json.dumps(tree_sizes),
            notes=json.dumps({digest: _noted(said) for digest, said in notes.items()}),
        )
        return _held(rows)

    async def widen(self) -> None:
        """Let waiting layers be part of batches twice as large: one that failed has just been published."""
        await self._database.run(statements.WIDEN)

    async def refused(self, digest: Digest, reason: str, *, elsewhere: bool = False) -> bool:
        """Record that a layer cannot be published, maybe as it belongs elsewhere, and is not tried again by itself.

        The answer is False if the layer is another publisher's.
        """
        rows = await self._database.run(
            statements.REFUSED, me=self._me, digest=digest, reason=reason, elsewhere=int(elsewhere)
        )
        return bool(rows)

    async def failed(self, digest: Digest, reason: str, *, due: float) -> bool:
        """Record that a layer failed alone, and when it is tried again; False if it is another publisher's."""
        return bool(await self._database.run(statements.FAILED, me=self._me, digest=digest, reason=reason, due=due))

    async def failed_together(
        self, digests: Iterable[Digest], reason: str, *, due: float, share: int
    ) -> frozenset[Digest]:
        """Record that a batch failed, nobody knows by which layer: its layers are tried again in smaller batches."""
        given = json.dumps(list(digests))
        rows = await self._database.run(
            statements.FAILED_TOGETHER, me=self._me, digests=given, reason=reason, due=due, share=share
        )
        return _held(rows)

    async def unfinished(self) -> tuple[Digest, ...]:
        """Return the layers that are worked on, or will be."""
        rows = await self._database.run(statements.UNFINISHED)
        return tuple(Digest(row["digest"]) for row in rows)

    async def get(self, digest: Digest) -> LayerRecord | None:
        """Look up one layer."""
        rows = await self._database.run(statements.GET, digest=digest)
        return record_of(rows[0]) if rows else None

    async def highest_revision(self) -> int:
        """Return the highest revision that has brought a layer or an image, as far as that is known, or 0."""
        (row,) = await self._database.run(statements.HIGHEST_REVISION)
        return row["revision"] or 0

    async def page(self, selection: Selection, *, after: str, limit: int) -> list[LayerRecord]:
        """List layers in the order of their digests, those after a given one."""
        conditions, chosen = condition_of(selection)
        rows = await self._database.run(statements.page(*conditions), **chosen, after=after, limit=limit)
        return [record_of(row) for row in rows]

    async def recent(self, selection: Selection, *, before: Moment | None, limit: int) -> list[LayerRecord]:
        """List layers, those first that changed last, from those that changed before a given one."""
        moment = before or Moment(float("inf"), "")
        conditions, chosen = condition_of(selection)
        rows = await self._database.run(
            statements.recent(*conditions), **chosen, time=moment.time, digest=moment.digest, limit=limit
        )
        return [record_of(row) for row in rows]

    async def summary(self) -> Summary:
        """Count the layers in each state, and find the one that has waited longest."""
        rows = await self._database.run(statements.SUMMARY)
        (elsewhere,) = await self._database.run(statements.ELSEWHERE)
        return summary_of(rows, elsewhere=elsewhere["number"])

    async def pause(self, reason: str) -> None:
        """Record that nothing new is to be published; of a pause that is there already only the reason changes."""
        await self._database.run(statements.PAUSE, reason=reason)

    async def resume(self) -> None:
        """Record that publishing goes on."""
        await self._database.run(statements.RESUME)

    async def paused(self) -> Pause | None:
        """Return the pause that is in force."""
        rows = await self._database.run(statements.PAUSED)
        return Pause(since=rows[0]["since"], reason=rows[0]["reason"]) if rows else None

    async def begin(self, token: str) -> None:
        """Record that a transaction is about to be opened."""
        await self._database.run(statements.BEGIN, me=self._me, token=token)

    async def works_on(self, process: str | None) -> None:
        """Record which program works on a transaction, or that none does; with the power they all end."""
        await self._database.run_passing(statements.WORKS_ON, process=process, **self._others)

    async def none_open(self) -> None:
        """Record that no transaction of the publisher's is open, nor any of publishers that have gone."""
        await self._database.run(statements.NONE_OPEN, **self._others)

    async def transactions(self) -> tuple[OwnTransaction, ...]:
        """Return the transactions of this publisher, and of those that have gone, of which nobody has seen the end."""
        rows = await self._database.run(statements.TRANSACTIONS, **self._others)
        return tuple(OwnTransaction(token=row["token"], process=row["process"]) for row in rows)

    async def check(self) -> None:
        """Make sure that the database can be written.

        Raises
        ------
        JournalError
            It cannot.
        """
        # Writing the number that is there already writes a page, and fails as any other write would.
        await self._database.run(statements.CHECK)


def _held(rows: Iterable[Row]) -> frozenset[Digest]:
    return frozenset(Digest(row["digest"]) for row in rows)


def _noted(said: Sequence[str]) -> list[str]:
    # PostgreSQL's texts hold no NUL.
    return [note.replace("\0", "\N{REPLACEMENT CHARACTER}") for note in said[:_NOTES]]
