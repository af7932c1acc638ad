"""What the journal says to its database to find out what nothing has named for long, layers or flat images.

When something was named last is told by the clock, which may be set. So for what is named by nothing a table beside it
has the same time, and how long the publisher had run by then.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Delete, Insert, Select, Table, delete, exists, not_, select

from services.common.database.expressions import ANY, NOW, given, insert, limit
from services.publisher.journal.tables import watch

__all__ = ["due", "forget_watched", "note_unnamed"]


def forget_watched(watched: Table, things: Table, *, key: str) -> Delete:
    """Forget what has been named since, or is there no more.

    Parameters
    ----------
    watched, things
        The table of what is named by nothing, and the one that it is beside.
    key
        The column by which they belong together.
    """
    same = things.c[key] == watched.c[key]
    return delete(watched).where(not_(exists().where(same, things.c.named_last == watched.c.named_last)))


def note_unnamed(watched: Table, things: Table, *conditions: ColumnElement[bool], key: str) -> Insert:
    """Take note of what is named by nothing, on some conditions; else as `forget_watched`."""
    found = (
        select(things.c[key], things.c.named_last, watch.c.seconds)
        .select_from(things.join(watch, ANY))
        .where(things.c.named_last.is_not(None), *conditions)
    )
    return insert(watched).from_select([key, "named_last", "since"], found).on_conflict_do_nothing()


def due(
    watched: Table,
    things: Table,
    columns: Sequence[ColumnElement[Any]],
    *conditions: ColumnElement[bool],
    key: str,
) -> Select[Any]:
    """Return some columns of what has been named by nothing for `after` seconds, and watched for `seen`.

    What nothing has named for longest comes first. Else as `note_unnamed`.
    """
    return (
        select(*columns)
        .select_from(things.join(watched, things.c[key] == watched.c[key]).join(watch, ANY))
        .where(
            things.c.named_last == watched.c.named_last,
            things.c.named_last + given("after") <= NOW,
            watch.c.seconds - watched.c.since >= given("seen"),
            *conditions,
        )
        .order_by(things.c.named_last, things.c[key])
        .limit(limit())
    )
