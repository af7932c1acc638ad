"""The journal's rows: which are meant, and what they say."""

import json
import sqlite3
from collections.abc import Iterable
from typing import Any, Final

from services.common.digest import Digest
from services.publisher.journal.model import LayerRecord, LayerSource, LayerState, Selection, Summary

__all__ = ["COLUMNS", "condition_of", "record_of", "summary_of"]

COLUMNS: Final = (
    "digest, state, attempts, share, reason, retryable, due, revision, archive_size, tree_size, notes, "
    "source, named_last, announced_at, updated_at"
)


def condition_of(selection: Selection) -> tuple[str, dict[str, object]]:
    """Return a selection as an SQL condition, and the values of its parameters."""
    parts, values = ["true"], dict[str, object]()
    if selection.states:
        names = [f"state_{number}" for number in range(len(selection.states))]
        parts.append(f"state IN ({', '.join(f':{name}' for name in names)})")
        values |= dict(zip(names, selection.states, strict=True))
    if selection.refused is not None:
        parts.append("state = 'failed' AND retryable = :tried_again")
        values["tried_again"] = not selection.refused
    if selection.prefix:
        # Not LIKE, which would not use the primary key; "g" comes after every hex digit.
        parts.append("digest >= :prefix AND digest < :prefix || 'g'")
        values["prefix"] = selection.prefix
    if selection.reason:
        parts.append("instr(lower(reason), lower(:contained))")
        values["contained"] = selection.reason
    return " AND ".join(parts), values


def record_of(row: sqlite3.Row) -> LayerRecord:
    """Read a row of `COLUMNS`."""
    return LayerRecord(
        digest=Digest(row["digest"]),
        state=LayerState(row["state"]),
        attempts=row["attempts"],
        share=row["share"],
        reason=row["reason"],
        retryable=bool(row["retryable"]),
        due=row["due"],
        revision=row["revision"],
        archive_size=row["archive_size"],
        tree_size=row["tree_size"],
        notes=tuple(json.loads(row["notes"] or "[]")),
        source=LayerSource(row["source"]),
        named_last=row["named_last"],
        announced_at=row["announced_at"],
        updated_at=row["updated_at"],
    )


def summary_of(rows: Iterable[tuple[Any, ...]], *, elsewhere: int) -> Summary:
    """Read rows of state, whether it is tried again, number of layers, and when the first was announced.

    Of the refused ones, some are for other repositories.
    """
    counts, refused = dict.fromkeys(LayerState, 0), 0
    oldest: list[float] = []
    for state, retryable, count, first in rows:
        counts[LayerState(state)] += count
        if state == LayerState.FAILED and not retryable:
            refused += count
        elif state != LayerState.PUBLISHED:
            oldest.append(first)
    return Summary(counts=counts, refused=refused, elsewhere=elsewhere, oldest=min(oldest, default=None))
