"""What the journal says to its database about images.

An image is claimed by the publisher that works on it, from there on until that one lets go of its name, even where
something else has been asked for meanwhile: so no two publishers work under one name. What a publisher, `me`, says of
an image has an effect only as long as it has claimed it.
"""

from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, case, cast, func, not_, or_, select, tuple_, update

from services.common.database.columns import NUMBER, SECONDS
from services.common.database.expressions import (
    NOW,
    ONE,
    among,
    constant,
    given,
    insert,
    is_listed,
    later,
    limit,
    listed,
    mapped,
)
from services.publisher.journal.image_model import UNDER_WAY, ImageState
from services.publisher.journal.image_rows import IMAGE_COLUMNS
from services.publisher.journal.model import WIDEST
from services.publisher.journal.publisher_statements import others_gone
from services.publisher.journal.tables import images

_c: Final = images.c
_ONE: Final = _c.name == given("name")
_MINE: Final = _c.claimed_by == given("me")
_OF_ASK: Final = and_(_ONE, _c.ask == given("ask"), _MINE)
_asks: Final = mapped("asks")
_OF_ASKS: Final = and_(tuple_(_c.name, _c.ask).in_(select(_asks.c.key, cast(_asks.c.value, NUMBER))), _MINE)
_REMOVING: Final = _c.state == constant(ImageState.REMOVING)


def _waiting(c: Any) -> ColumnElement[bool]:  # noqa: ANN401 - the columns of the table, under whatever name
    """A refused image waits as well if it is due at some time: what is wrong with it may be mended by then."""
    failed = and_(c.state == constant(ImageState.FAILED), or_(c.retryable != 0, c.due > 0))
    return and_(or_(among(c.state, ImageState.ASKED, ImageState.REMOVING), failed), c.claimed_by.is_(None))


def _free(c: Any) -> ColumnElement[bool]:  # noqa: ANN401 - as above
    removing = c.state == constant(ImageState.REMOVING)
    return and_(c.name.not_in(listed("busy")), or_(removing, c.registry.not_in(listed("full"))))


def _kept_removing(state: ImageState) -> ColumnElement[Any]:
    """A state, but for a removal, which stays one."""
    return case((_REMOVING, _c.state), else_=constant(state))


def _new_ask(state: ImageState) -> dict[str, Any]:
    unknown = ("digest", "share", "reason", "bytes_known", "bytes_missing", "resolving", "fetching", "publishing")
    return {
        "state": constant(state),
        "ask": _c.ask + 1,
        "again": 0,
        "attempts": 0,
        "retryable": 0,
        "due": 0,
        "asked_at": NOW,
        "updated_at": NOW,
        **dict.fromkeys(unknown),
    }


CHECKED_ONE: Final = update(images).values(checked_at=NOW, updated_at=NOW).where(_ONE)
_named: Final = mapped("named")
CHECKED: Final = (
    update(images)
    .values(checked_at=NOW)
    .where(
        _c.state == constant(ImageState.PUBLISHED),
        tuple_(_c.name, _c.published).in_(select(_named.c.key, _named.c.value)),
    )
    .returning(_c.name)
)
RETRY: Final = (
    update(images)
    .values(
        state=constant(ImageState.ASKED),
        retryable=0,
        due=0,
        updated_at=NOW,
        asked_at=case((_c.state == constant(ImageState.PUBLISHED), NOW), else_=_c.asked_at),
    )
    .where(_ONE, among(_c.state, ImageState.FAILED, ImageState.PUBLISHED))
)
REMOVE: Final = (
    update(images)
    .values(**_new_ask(ImageState.REMOVING), keep=given("keep"))
    .where(_ONE, not_(among(_c.state, ImageState.REMOVING, ImageState.REMOVED)))
)
_candidates: Final = images.alias("candidates")
CLAIM: Final = (
    update(images)
    .values(state=_kept_removing(ImageState.RESOLVING), retryable=0, updated_at=NOW, claimed_by=given("me"))
    .where(
        _c.name
        == select(_candidates.c.name)
        .where(_waiting(_candidates.c), _candidates.c.due <= NOW, _free(_candidates.c))
        .order_by(_candidates.c.priority.desc(), _candidates.c.asked_at, _candidates.c.name)
        .limit(ONE)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    .returning(*IMAGE_COLUMNS)
)
NEXT_DUE: Final = select(func.min(_c.due).label("due")).where(_waiting(_c), _free(_c))
COUNTED: Final = (
    update(images).values(bytes_known=given("known"), bytes_missing=given("missing"), updated_at=NOW).where(_OF_ASK)
)
READY: Final = (
    update(images)
    .values(state=constant(ImageState.READY), fetching=given("seconds"), updated_at=NOW)
    .where(_OF_ASK)
    .returning(_c.name)
)
ENTER: Final = (
    update(images).values(state=_kept_removing(ImageState.PUBLISHING), updated_at=NOW).where(_OF_ASK).returning(_c.name)
)
LEAVE_TRANSACTION: Final = (
    update(images)
    .values(state=constant(ImageState.READY), updated_at=NOW)
    .where(_c.state == constant(ImageState.PUBLISHING), _OF_ASKS)
)
FAILED: Final = (
    update(images)
    .values(
        reason=given("reason"),
        state=_kept_removing(ImageState.FAILED),
        retryable=1,
        due=given("due"),
        attempts=_c.attempts + 1,
        updated_at=NOW,
    )
    .where(_OF_ASK)
    .returning(_c.name)
)
REFUSED: Final = (
    update(images)
    .values(
        reason=given("reason"),
        due=case((_REMOVING, 0), else_=func.coalesce(given("due", SECONDS), 0)),
        state=constant(ImageState.FAILED),
        retryable=0,
        attempts=_c.attempts + 1,
        updated_at=NOW,
    )
    .where(_OF_ASK)
    .returning(_c.name)
)
FAILED_TOGETHER: Final = (
    update(images)
    .values(
        state=_kept_removing(ImageState.FAILED),
        retryable=1,
        reason=given("reason"),
        due=given("due"),
        share=given("share"),
        updated_at=NOW,
    )
    .where(_OF_ASKS)
)
WIDEN: Final = (
    update(images).values(share=_c.share * 2).where(_c.state == constant(ImageState.FAILED), _c.share < WIDEST)
)
RELEASE: Final = update(images).values(claimed_by=None).where(is_listed(_c.name, "names"), _MINE)
CLAIMED: Final = select(*IMAGE_COLUMNS).where(_MINE, is_listed(_c.name, "names"))
_given_back: Final = {
    "state": case((among(_c.state, *UNDER_WAY), constant(ImageState.ASKED)), else_=_c.state),
    "due": case((among(_c.state, *UNDER_WAY), 0), else_=_c.due),
    "updated_at": NOW,
    "claimed_by": None,
}
# Publishers before the tenth version of the tables claimed nothing by name.
_left: Final = or_(and_(among(_c.state, *UNDER_WAY), _c.claimed_by.is_(None)), others_gone(_c.claimed_by))
_PUBLISHING: Final = _c.state == constant(ImageState.PUBLISHING)
TAKE_OVER: Final = update(images).values(claimed_by=given("me")).where(_PUBLISHING, _left).returning(*IMAGE_COLUMNS)
INTERRUPTED: Final = update(images).values(_given_back).where(_left)
GIVE_BACK: Final = update(images).values(_given_back).where(_OF_ASKS)
LEAVE: Final = update(images).values(_given_back).where(_MINE, not_(_PUBLISHING))
"""But for what may have been published already: whoever takes over finds out."""
GET: Final = select(*IMAGE_COLUMNS).where(_ONE)
GET_LOCKED: Final = GET.with_for_update()
"""The same in a transaction that changes what it has read."""
RECENT_FAILURES: Final = (
    select(*IMAGE_COLUMNS)
    .where(_c.state == constant(ImageState.FAILED))
    .order_by(_c.updated_at.desc(), _c.name)
    .limit(limit())
)
SUMMARY: Final = select(
    _c.state, _c.retryable, func.count().label("number"), func.min(_c.asked_at).label("oldest")
).group_by(_c.state, _c.retryable)

_wish: Final = {
    name: given(name)
    for name in ("registry", "reference", "asked", "platforms", "project", "priority", "verified", "keep", "outputs")
}
INSERT: Final = insert(images).values(
    name=given("name"), **_wish, state=constant(ImageState.ASKED), asked_at=NOW, updated_at=NOW
)
ASK_ANEW: Final = update(images).values(**_new_ask(ImageState.ASKED), **_wish).where(_ONE)
ASK_ALIKE: Final = (
    update(images)
    .values(
        priority=given("priority"),
        project=given("project"),
        keep=given("keep"),
        updated_at=NOW,
        asked=func.coalesce(given("asked", _c.asked.type), _c.asked),
        again=later(_c.again, given("again", NUMBER)),
    )
    .where(_ONE)
)


def page(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Images in the order of their names, those after a given one."""
    return select(*IMAGE_COLUMNS).where(*conditions, _c.name > given("after")).order_by(_c.name).limit(limit())
