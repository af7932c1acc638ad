"""What the journal says to its database about its publishers.

A publisher has gone once it has left, or another one has found that its lease has run out and has said so in its row:
the row's lock decides whether that or a renewal came first. What has been claimed by one that has gone is free.
"""

from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, case, delete, exists, func, not_, or_, select, update

from services.publisher.journal.expressions import CLOCK, given, insert
from services.publisher.journal.tables import SECONDS, images, layers, publishers

__all__ = [
    "ENTER",
    "EXPIRE",
    "FORGET",
    "LEAVE",
    "LIST",
    "OTHERS_GONE",
    "RENEW",
    "others_gone",
]

_c: Final = publishers.c
_KEPT: Final = 86400
"""Seconds for which those that have gone are remembered, for people."""
_ME: Final = _c.id == given("me")
_HERE: Final = _c.left_at.is_(None)
_RUN_OUT: Final = and_(_HERE, _c.lease_until <= CLOCK)
_LEASE: Final = {"seen_at": CLOCK, "lease_until": CLOCK + given("lease", SECONDS)}


def others_gone(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a column names another publisher, `me` being this one, that has gone; any other one if `alone` is 1."""
    here = exists().where(_c.id == column, _HERE)
    return and_(column != given("me"), or_(given("alone") == 1, not_(here)))


ENTER: Final = insert(publishers).values(id=given("me"), name=given("name"), started_at=CLOCK, **_LEASE)
OTHERS_GONE: Final = update(publishers).values(left_at=CLOCK).where(_HERE, not_(_ME))
FORGET: Final = delete(publishers).where(_c.left_at < CLOCK - _KEPT)
EXPIRE: Final = update(publishers).values(left_at=CLOCK).where(_RUN_OUT, not_(_ME)).returning(_c.id, _c.name)
_other: Final = publishers.alias("other")
# Layers are free as soon as their publisher has gone; images that it may have published are not.
_abandoned: Final = or_(
    exists().where(_other.c.left_at.is_(None), _other.c.lease_until <= CLOCK, _other.c.id != given("me")),
    exists().where(_other.c.left_at.is_not(None), _other.c.id != given("me"), images.c.claimed_by == _other.c.id),
)
RENEW: Final = (
    update(publishers)
    .values(**_LEASE, leads=given("leads"))
    .where(_ME, _HERE)
    .returning(case((_abandoned, 1), else_=0).label("abandoned"))
)
LEAVE: Final = update(publishers).values(left_at=CLOCK, leads=0).where(_ME, _HERE)


def _claims(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return select(func.count()).where(column == _c.id).correlate(publishers).scalar_subquery()


LIST: Final[Select[Any]] = select(
    _c.id,
    _c.name,
    _c.started_at,
    _c.seen_at,
    _c.leads,
    case((or_(_c.left_at.is_not(None), _c.lease_until <= CLOCK), 1), else_=0).label("gone"),
    case((_c.left_at < _c.lease_until, 1), else_=0).label("ended"),
    _claims(layers.c.claimed_by).label("layers"),
    _claims(images.c.claimed_by).label("images"),
).order_by(_c.started_at, _c.id)
