"""The journal: one SQLite file, one statement per change.

A change is on the disk when the call returns, but for the states that a layer passes through on its way: whatever they
are, a publisher that is started begins with such a layer anew. What became of a layer, and what was announced, lasts.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from services.common.digest import Digest
from services.publisher.journal.file import JournalFile
from services.publisher.journal.flats import FlatJournal
from services.publisher.journal.images import ImageJournal
from services.publisher.journal.model import LayerRecord, LayerState, Moment, Pause, Selection, Summary
from services.publisher.journal.rows import COLUMNS, condition_of, record_of, summary_of
from services.publisher.journal.schema import VERSION
from services.publisher.journal.unnamed import UnnamedJournal
from services.publisher.journal.versions import VersionJournal
from services.repository.interface import OwnTransaction

__all__ = ["Journal"]

_GIVEN: Final = "digest IN (SELECT value FROM json_each(:digests))"
_WAITING: Final = "(state = 'announced' OR (state = 'failed' AND retryable))"
_UNKNOWN: Final[Mapping[Digest, int]] = {}
_NOTHING: Final[Mapping[Digest, Sequence[str]]] = {}
_NOTES: Final = 20
"""Notes of a layer that are recorded: enough to see what it is about."""


class Journal:
    """The layers that the publisher knows, and its transactions.

    Parameters
    ----------
    path
        The SQLite file; it and its directory are made where they do not exist.
    """

    def __init__(self, path: Path) -> None:
        self._file = JournalFile(path)
        self.images = ImageJournal(self._file)
        """The images."""
        self.versions = VersionJournal(self._file)
        """What their names have named."""
        self.unnamed = UnnamedJournal(self._file)
        """What they name no more."""
        self.flats = FlatJournal(self._file)
        """Their flat images."""

    async def __aenter__(self) -> Self:
        """Open the file.

        Raises
        ------
        JournalError
            The file is no journal, was written by a newer publisher, or cannot be opened.
        """
        await self._file.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        await self._file.__aexit__(kind, error, trace)

    async def announce(self, digests: Iterable[Digest]) -> int:
        """Record layers as announced: new ones, and failed ones once more. Others stay what they are.

        Returns
        -------
        int
            How many there are to work on that were not before.
        """
        return await self._announce(digests, again="layers.state = 'failed'")

    async def announce_found(self, digests: Iterable[Digest]) -> int:
        """Record layers that a sweep found: as `announce`, but ones that were refused for good stay so."""
        return await self._announce(digests, again="layers.state = 'failed' AND layers.retryable")

    async def _announce(self, digests: Iterable[Digest], *, again: str) -> int:
        given = json.dumps(list(digests))
        # Whatever has been in the bucket counts as committed: it is not collected by itself.
        await self._file.run(
            f"""
            UPDATE layers SET source = 'bucket', named_last = NULL WHERE source = 'registry' AND {_GIVEN} RETURNING 1
            """,  # noqa: S608 - constants of this module
            digests=given,
        )
        changed = await self._file.run(
            f"""
            INSERT INTO layers (digest, state, announced_at, updated_at)
            SELECT DISTINCT value, 'announced', :now, :now FROM json_each(:digests) WHERE true
            ON CONFLICT (digest) DO UPDATE
            SET state = 'announced', retryable = 0, due = 0, updated_at = :now WHERE {again}
            RETURNING digest
            """,  # noqa: S608 - the condition is one of the two above
            digests=given,
        )
        return len(changed)

    async def restart(self, digest: Digest) -> LayerRecord | None:
        """Record that somebody asks to try a failed or published layer again; return it as it is now."""
        await self._file.run(
            """
            UPDATE layers SET state = 'announced', retryable = 0, due = 0, updated_at = :now,
                announced_at = CASE state WHEN 'published' THEN :now ELSE announced_at END
            WHERE digest = :digest AND state IN ('failed', 'published') RETURNING digest
            """,
            digest=digest,
        )
        return await self.get(digest)

    async def restart_failed(self) -> int:
        """Record that somebody asks to try every failed layer again; return how many there are."""
        restarted = await self._file.run(
            """
            UPDATE layers SET state = 'announced', retryable = 0, due = 0, updated_at = :now
            WHERE state = 'failed' RETURNING 1
            """
        )
        return len(restarted)

    async def claim(self, *, busy: Collection[Digest] = ()) -> LayerRecord | None:
        """Take the layer that has waited longest of those that are due, and make it `fetching`.

        Parameters
        ----------
        busy
            Layers that are on their way for images.
        """
        rows = await self._file.run_passing(
            f"""
            UPDATE layers SET state = 'fetching', retryable = 0, updated_at = :now WHERE digest = (
                SELECT digest FROM layers WHERE {_WAITING} AND due <= :now
                    AND digest NOT IN (SELECT value FROM json_each(:busy)) ORDER BY announced_at, digest LIMIT 1
            ) RETURNING {COLUMNS}
            """,  # noqa: S608 - constants of this module
            busy=json.dumps(list(busy)),
        )
        return record_of(rows[0]) if rows else None

    async def next_due(self, *, busy: Collection[Digest] = ()) -> float | None:
        """Return when the next layer can be claimed, in seconds since the epoch; nothing if none waits."""
        (row,) = await self._file.run(
            f"SELECT min(due) FROM layers WHERE {_WAITING} AND digest NOT IN (SELECT value FROM json_each(:busy))",  # noqa: S608
            busy=json.dumps(list(busy)),
        )
        return None if row[0] is None else float(row[0])

    async def advance(self, digests: Iterable[Digest], state: LayerState) -> None:
        """Move layers to a state that they pass through; after a loss of power it may be the one before."""
        await self._file.run_passing(
            f"UPDATE layers SET state = :state, updated_at = :now WHERE {_GIVEN} RETURNING digest",  # noqa: S608
            digests=json.dumps(list(digests)),
            state=state,
        )

    async def verified(self, digest: Digest, *, archive_size: int) -> None:
        """Record that a layer's archive, of so many bytes, is in the spool."""
        await self._file.run_passing(
            """
            UPDATE layers SET state = 'verified', archive_size = :archive_size, updated_at = :now
            WHERE digest = :digest RETURNING digest
            """,
            digest=digest,
            archive_size=archive_size,
        )

    async def published(
        self,
        digests: Iterable[Digest],
        revision: int | None,
        *,
        tree_sizes: Mapping[Digest, int] = _UNKNOWN,
        notes: Mapping[Digest, Sequence[str]] = _NOTHING,
    ) -> None:
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
        await self._file.run(
            f"""
            UPDATE layers SET state = 'published', revision = :revision, reason = NULL, attempts = 0, share = NULL,
                retryable = 0, due = 0, updated_at = :now,
                tree_size = coalesce((SELECT value FROM json_each(:sizes) WHERE key = digest), tree_size),
                notes = coalesce((SELECT value FROM json_each(:notes) WHERE key = digest), notes)
            WHERE {_GIVEN} RETURNING digest
            """,  # noqa: S608 - constants of this module
            digests=json.dumps(list(digests)),
            revision=revision,
            sizes=json.dumps(tree_sizes),
            notes=json.dumps({digest: list(said[:_NOTES]) for digest, said in notes.items()}),
        )

    async def widen(self) -> None:
        """Let waiting layers be part of batches twice as large: one that failed has just been published."""
        await self._file.run(
            "UPDATE layers SET share = share * 2 WHERE state = 'failed' AND share < 1024 RETURNING digest"
        )

    async def refused(self, digest: Digest, reason: str, *, elsewhere: bool = False) -> None:
        """Record that a layer cannot be published, maybe as it belongs elsewhere, and is not tried again by itself."""
        await self._file.run(
            """
            UPDATE layers SET state = 'failed', retryable = 0, reason = :reason, attempts = attempts + 1,
                elsewhere = :elsewhere, updated_at = :now WHERE digest = :digest RETURNING digest
            """,
            digest=digest,
            reason=reason,
            elsewhere=elsewhere,
        )

    async def failed(self, digest: Digest, reason: str, *, due: float) -> None:
        """Record that a layer failed alone, and when it is tried again."""
        await self._file.run(
            """
            UPDATE layers SET state = 'failed', retryable = 1, reason = :reason, attempts = attempts + 1, due = :due,
                updated_at = :now WHERE digest = :digest RETURNING digest
            """,
            digest=digest,
            reason=reason,
            due=due,
        )

    async def failed_together(self, digests: Iterable[Digest], reason: str, *, due: float, share: int) -> None:
        """Record that a batch failed, nobody knows by which layer: its layers are tried again in smaller batches."""
        await self._file.run(
            f"""
            UPDATE layers SET state = 'failed', retryable = 1, reason = :reason, due = :due, share = :share,
                updated_at = :now WHERE {_GIVEN} RETURNING digest
            """,  # noqa: S608 - constants of this module
            digests=json.dumps(list(digests)),
            reason=reason,
            due=due,
            share=share,
        )

    async def interrupted(self) -> tuple[Digest, ...]:
        """Make what an earlier publisher was working on `announced` again; return which of it was verified."""
        rows = await self._file.run("SELECT digest FROM layers WHERE state IN ('verified', 'publishing')")
        await self._file.run(
            """
            UPDATE layers SET state = 'announced', due = 0, updated_at = :now
            WHERE state IN ('fetching', 'verified', 'publishing') RETURNING digest
            """
        )
        return tuple(Digest(row["digest"]) for row in rows)

    async def unfinished(self) -> tuple[Digest, ...]:
        """Return the layers that are worked on, or will be."""
        rows = await self._file.run(
            "SELECT digest FROM layers WHERE state <> 'published' AND NOT (state = 'failed' AND NOT retryable)"
        )
        return tuple(Digest(row["digest"]) for row in rows)

    async def get(self, digest: Digest) -> LayerRecord | None:
        """Look up one layer."""
        rows = await self._file.run(f"SELECT {COLUMNS} FROM layers WHERE digest = :digest", digest=digest)  # noqa: S608
        return record_of(rows[0]) if rows else None

    async def page(self, selection: Selection, *, after: str, limit: int) -> list[LayerRecord]:
        """List layers in the order of their digests, those after a given one."""
        return await self._select(selection, "digest > :after ORDER BY digest LIMIT :limit", after=after, limit=limit)

    async def recent(self, selection: Selection, *, before: Moment | None, limit: int) -> list[LayerRecord]:
        """List layers, those first that changed last, from those that changed before a given one."""
        moment = before or Moment(float("inf"), "")
        return await self._select(
            selection,
            "(updated_at, digest) < (:time, :digest) ORDER BY updated_at DESC, digest DESC LIMIT :limit",
            time=moment.time,
            digest=moment.digest,
            limit=limit,
        )

    async def _select(self, selection: Selection, rest: str, **parameters: object) -> list[LayerRecord]:
        condition, chosen = condition_of(selection)
        statement = f"SELECT {COLUMNS} FROM layers WHERE {condition} AND {rest}"  # noqa: S608 - values are parameters
        return [record_of(row) for row in await self._file.run(statement, **chosen, **parameters)]

    async def summary(self) -> Summary:
        """Count the layers in each state, and find the one that has waited longest."""
        rows = await self._file.run("SELECT state, retryable, count(*), min(announced_at) FROM layers GROUP BY 1, 2")
        ((elsewhere,),) = await self._file.run(
            "SELECT count(*) FROM layers WHERE elsewhere AND state = 'failed' AND NOT retryable"
        )
        return summary_of((tuple(row) for row in rows), elsewhere=elsewhere)

    async def pause(self, reason: str) -> None:
        """Record that nothing new is to be published; of a pause that is there already only the reason changes."""
        await self._file.run(
            """
            INSERT INTO pause (id, since, reason) VALUES (1, :now, :reason)
            ON CONFLICT (id) DO UPDATE SET reason = :reason RETURNING id
            """,
            reason=reason,
        )

    async def resume(self) -> None:
        """Record that publishing goes on."""
        await self._file.run("DELETE FROM pause RETURNING id")

    async def paused(self) -> Pause | None:
        """Return the pause that is in force."""
        rows = await self._file.run("SELECT since, reason FROM pause")
        return Pause(since=rows[0]["since"], reason=rows[0]["reason"]) if rows else None

    async def begin(self, token: str) -> None:
        """Record that a transaction is about to be opened."""
        await self._file.run("INSERT INTO transactions (token) VALUES (:token) RETURNING 1", token=token)

    async def works_on(self, process: str | None) -> None:
        """Record which program works on a transaction, or that none does; with the power they all end."""
        await self._file.run_passing("UPDATE transactions SET process = :process RETURNING 1", process=process)

    async def none_open(self) -> None:
        """Record that no transaction of the publisher's is open."""
        await self._file.run("DELETE FROM transactions RETURNING 1")

    async def transactions(self) -> tuple[OwnTransaction, ...]:
        """Return the transactions that have been begun and of which nobody has seen the end."""
        rows = await self._file.run("SELECT token, process FROM transactions")
        return tuple(OwnTransaction(token=row["token"], process=row["process"]) for row in rows)

    async def check(self) -> None:
        """Make sure that the file can be written.

        Raises
        ------
        JournalError
            It cannot.
        """
        # Writing the number that is there already writes a page, and fails as any other write would.
        await self._file.run(f"PRAGMA user_version = {VERSION}")
