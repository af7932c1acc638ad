"""What the journal says to its database about layers, the publishers' pause and their transactions.

A layer that a publisher works on is claimed by it. What it says of the layer has an effect only as long as it is: `me`
is the publisher that says it.
"""

from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    MetaData,
    Select,
    Table,
    Text,
    and_,
    case,
    cast,
    delete,
    func,
    not_,
    or_,
    select,
    text,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert

from services.common.database.columns import NUMBER, SECONDS
from services.common.database.expressions import (
    ANY,
    NOW,
    ONE,
    among,
    constant,
    given,
    insert,
    is_listed,
    limit,
    listed,
    mapped,
)
from services.publisher.journal.model import WIDEST, LayerSource, LayerState
from services.publisher.journal.publisher_statements import others_gone
from services.publisher.journal.rows import COLUMNS
from services.publisher.journal.tables import WAITING, images, layers, pause, transactions

__all__ = [
    "ADVANCE",
    "ANNOUNCE",
    "ANNOUNCE_FOUND",
    "BEGIN",
    "CHECK",
    "CLAIM",
    "COMMITTED",
    "ELSEWHERE",
    "FAILED",
    "FAILED_TOGETHER",
    "GET",
    "GIVE_BACK",
    "HELD",
    "HIGHEST_REVISION",
    "INTERRUPTED",
    "LEAVE",
    "NEXT_DUE",
    "NONE_OPEN",
    "PAUSE",
    "PAUSED",
    "PUBLISHED",
    "REFUSED",
    "RESTART",
    "RESTART_FAILED",
    "RESUME",
    "SUMMARY",
    "TRANSACTIONS",
    "UNFINISHED",
    "VERIFIED",
    "WERE_VERIFIED",
    "WIDEN",
    "WORKS_ON",
    "page",
    "recent",
]

_c: Final = layers.c
_GIVEN: Final = is_listed(_c.digest, "digests")
_ONE: Final = _c.digest == given("digest")
_MINE: Final = _c.claimed_by == given("me")
_FAILED: Final = _c.state == constant(LayerState.FAILED)
_WAITING: Final = text(f"({WAITING})")
_AGAIN: Final = {"state": constant(LayerState.ANNOUNCED), "retryable": 0, "due": 0, "updated_at": NOW}
"""What a layer gets that is tried again at once."""
_UNDER_WAY: Final = among(_c.state, LayerState.FETCHING, LayerState.VERIFIED, LayerState.PUBLISHING)
_GIVEN_BACK: Final = {
    "state": constant(LayerState.ANNOUNCED),
    "due": 0,
    "updated_at": NOW,
    "claimed_by": None,
}
_TRIED_AGAIN: Final = {
    "state": constant(LayerState.FAILED),
    "retryable": 1,
    "reason": given("reason"),
    "due": given("due"),
    "updated_at": NOW,
    "claimed_by": None,
}
"""What a layer gets that is tried again when it is due."""
_PUBLISHED: Final = {
    "state": constant(LayerState.PUBLISHED),
    "reason": None,
    "attempts": 0,
    "share": None,
    "retryable": 0,
    "due": 0,
    "updated_at": NOW,
    "claimed_by": None,
}


def _announce(again: ColumnElement[bool]) -> ReturningInsert[Any]:
    given_digest = listed("digests").subquery().c.value
    announced = select(given_digest, constant(LayerState.ANNOUNCED), NOW, NOW).distinct().where(ANY)
    return (
        insert(layers)
        .from_select(["digest", "state", "announced_at", "updated_at"], announced)
        .on_conflict_do_update(index_elements=[_c.digest], set_=_AGAIN, where=again)
        .returning(_c.digest)
    )


# Whatever has been in the bucket counts as committed: it is not collected by itself.
COMMITTED: Final = (
    update(layers)
    .values(source=constant(LayerSource.BUCKET), named_last=None)
    .where(_c.source == constant(LayerSource.REGISTRY), _GIVEN)
)
ANNOUNCE: Final = _announce(_FAILED)
ANNOUNCE_FOUND: Final = _announce(and_(_FAILED, _c.retryable != 0))

RESTART: Final = (
    update(layers)
    .values(**_AGAIN, announced_at=case((_c.state == constant(LayerState.PUBLISHED), NOW), else_=_c.announced_at))
    .where(_ONE, among(_c.state, LayerState.FAILED, LayerState.PUBLISHED))
)
RESTART_FAILED: Final = update(layers).values(_AGAIN).where(_FAILED).returning(_c.digest)

_candidates: Final = layers.alias("candidates")
CLAIM: Final = (
    update(layers)
    .values(state=constant(LayerState.FETCHING), retryable=0, updated_at=NOW, claimed_by=given("me"))
    .where(
        _c.digest
        == select(_candidates.c.digest)
        .where(_WAITING, _candidates.c.due <= NOW, _candidates.c.digest.not_in(listed("busy")))
        .order_by(_candidates.c.announced_at, _candidates.c.digest)
        .limit(ONE)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    .returning(*COLUMNS)
)
NEXT_DUE: Final = select(func.min(_c.due).label("due")).where(_WAITING, _c.digest.not_in(listed("busy")))

ADVANCE: Final = update(layers).values(state=given("state"), updated_at=NOW).where(_GIVEN, _MINE).returning(_c.digest)
GIVE_BACK: Final = update(layers).values(_GIVEN_BACK).where(_GIVEN, _MINE)
HELD: Final = select(_c.digest).where(_GIVEN, _MINE)
VERIFIED: Final = (
    update(layers)
    .values(state=constant(LayerState.VERIFIED), archive_size=given("archive_size"), updated_at=NOW)
    .where(_ONE, _MINE)
    .returning(_c.digest)
)
_sizes: Final = mapped("sizes")
_notes: Final = mapped("notes")
PUBLISHED: Final = (
    update(layers)
    .values(
        **_PUBLISHED,
        revision=given("revision"),
        tree_size=func.coalesce(
            select(cast(_sizes.c.value, NUMBER)).where(_sizes.c.key == _c.digest).scalar_subquery(), _c.tree_size
        ),
        notes=func.coalesce(select(_notes.c.value).where(_notes.c.key == _c.digest).scalar_subquery(), _c.notes),
    )
    .where(_GIVEN, _MINE)
    .returning(_c.digest)
)
WIDEN: Final = update(layers).values(share=_c.share * 2).where(_FAILED, _c.share < WIDEST)
REFUSED: Final = (
    update(layers)
    .values(
        state=constant(LayerState.FAILED),
        retryable=0,
        reason=given("reason"),
        attempts=_c.attempts + 1,
        elsewhere=given("elsewhere"),
        updated_at=NOW,
        claimed_by=None,
    )
    .where(_ONE, _MINE)
    .returning(_c.digest)
)
FAILED: Final = update(layers).values(**_TRIED_AGAIN, attempts=_c.attempts + 1).where(_ONE, _MINE).returning(_c.digest)
FAILED_TOGETHER: Final = (
    update(layers).values(**_TRIED_AGAIN, share=given("share")).where(_GIVEN, _MINE).returning(_c.digest)
)

# Publishers before the tenth version of the tables claimed nothing by name.
_left: Final = and_(_UNDER_WAY, or_(_c.claimed_by.is_(None), others_gone(_c.claimed_by)))
WERE_VERIFIED: Final = select(_c.digest).where(among(_c.state, LayerState.VERIFIED, LayerState.PUBLISHING))
INTERRUPTED: Final = update(layers).values(_GIVEN_BACK).where(_left)
LEAVE: Final = update(layers).values(_GIVEN_BACK).where(_MINE)
UNFINISHED: Final = select(_c.digest).where(
    _c.state != constant(LayerState.PUBLISHED), not_(and_(_FAILED, _c.retryable == 0))
)

GET: Final = select(*COLUMNS).where(_ONE)
_revisions: Final = union_all(select(_c.revision), select(images.c.revision)).subquery()
HIGHEST_REVISION: Final = select(func.max(_revisions.c.revision).label("revision"))
SUMMARY: Final = select(
    _c.state, _c.retryable, func.count().label("number"), func.min(_c.announced_at).label("oldest")
).group_by(_c.state, _c.retryable)
ELSEWHERE: Final = select(func.count().label("number")).where(text("elsewhere <> 0"), _FAILED, _c.retryable == 0)

PAUSE: Final = (
    insert(pause)
    .values(id=1, since=NOW, reason=given("reason"))
    .on_conflict_do_update(index_elements=[pause.c.id], set_={"reason": given("reason")})
)
RESUME: Final = delete(pause)
PAUSED: Final = select(pause.c.since, pause.c.reason)

_t: Final = transactions.c
_own: Final = or_(_t.publisher.is_(None), _t.publisher == given("me"), others_gone(_t.publisher))
BEGIN: Final = insert(transactions).values(token=given("token"), publisher=given("me"))
WORKS_ON: Final = update(transactions).values(process=given("process")).where(_own)
NONE_OPEN: Final = delete(transactions).where(_own)
_version: Final = Table("alembic_version", MetaData(), Column("version_num", Text))
CHECK: Final = update(_version).values(version_num=_version.c.version_num)

TRANSACTIONS: Final = select(_t.token, _t.process).where(_own)


def page(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Layers in the order of their digests, those after a given one."""
    chosen = select(*COLUMNS).where(*conditions, _c.digest > given("after"))
    return chosen.order_by(_c.digest).limit(limit())


def recent(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Layers, those first that changed last, from those that changed before a given one."""
    before = tuple_(_c.updated_at, _c.digest) < tuple_(given("time", SECONDS), given("digest"))
    chosen = select(*COLUMNS).where(*conditions, before)
    return chosen.order_by(_c.updated_at.desc(), _c.digest.desc()).limit(limit())
