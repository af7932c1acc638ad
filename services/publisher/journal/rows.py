"""The journal's rows: which are meant, and what they say."""

import json
from collections.abc import Iterable
from typing import Final

from sqlalchemy import ColumnElement, func, or_

from services.common.database.expressions import contains, given
from services.common.database.interface import Row
from services.common.digest import Digest
from services.publisher.journal.model import LayerRecord, LayerSource, LayerState, Selection, Summary
from services.publisher.journal.tables import layers

__all__ = ["COLUMNS", "condition_of", "record_of", "summary_of"]

_c: Final = layers.c
COLUMNS: Final = (
    _c.digest,
    _c.state,
    _c.attempts,
    _c.share,
    _c.reason,
    _c.retryable,
    _c.due,
    _c.revision,
    _c.archive_size,
    _c.tree_size,
    _c.notes,
    _c.source,
    _c.named_last,
    _c.announced_at,
    _c.updated_at,
    _c.claimed_by,
)


def condition_of(selection: Selection) -> tuple[list[ColumnElement[bool]], dict[str, object]]:
    """Return a selection as conditions, and the values of their parameters."""
    parts, values = list[ColumnElement[bool]](), dict[str, object]()
    if selection.states:
        names = [f"state_{number}" for number in range(len(selection.states))]
        parts.append(or_(*(_c.state == given(name) for name in names)))
        values |= dict(zip(names, selection.states, strict=True))
    if selection.refused is not None:
        parts += (_c.state == LayerState.FAILED, _c.retryable == given("tried_again"))
        values["tried_again"] = int(not selection.refused)
    if selection.prefix:
        # Not LIKE, which would not use the primary key; "g" comes after every hex digit.
        parts += (_c.digest >= given("prefix"), _c.digest < given("behind_prefix"))
        values |= {"prefix": selection.prefix, "behind_prefix": f"{selection.prefix}g"}
    if selection.reason:
        parts.append(contains(func.lower(_c.reason), func.lower(given("contained"))))
        values["contained"] = selection.reason
    return parts, values


def record_of(row: Row) -> LayerRecord:
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
        claimed_by=row["claimed_by"],
    )


def summary_of(rows: Iterable[Row], *, elsewhere: int) -> Summary:
    """Read rows of state, whether it is tried again, number of layers, and when the first was announced.

    Of the refused ones, some are for other repositories.
    """
    counts, refused = dict.fromkeys(LayerState, 0), 0
    oldest: list[float] = []
    for row in rows:
        state, number = LayerState(row["state"]), row["number"]
        counts[state] += number
        if state == LayerState.FAILED and not row["retryable"]:
            refused += number
        elif state != LayerState.PUBLISHED:
            oldest.append(row["oldest"])
    return Summary(counts=counts, refused=refused, elsewhere=elsewhere, oldest=min(oldest, default=None))
