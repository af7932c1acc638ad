"""What the journal says to its database about what image names have named, and until when what they named is kept."""

from typing import Any, Final

from sqlalchemy import ColumnElement, FromClause, Table, and_, case, delete, func, not_, or_, select, update

from services.publisher.journal.expressions import NOW, among, constant, given, insert, is_listed, later, listed, mapped
from services.publisher.journal.image_model import ImageState
from services.publisher.journal.image_rows import VERSION_COLUMNS
from services.publisher.journal.model import LayerSource, LayerState
from services.publisher.journal.tables import (
    NUMBER,
    collecting,
    image_versions,
    images,
    layers,
    version_documents,
    version_flats,
    version_layers,
)

_i: Final = images.c
_v: Final = image_versions.c
_l: Final = version_layers.c
_OF_NAME: Final = _i.name == given("name")
_OF_ASK: Final = _i.ask == given("ask")
_MINE: Final = _i.claimed_by == given("me")
_VERSION: Final = and_(_v.name == given("name"), _v.digest == given("digest"))
_LAYERS_OF_VERSION: Final = and_(_l.name == given("name"), _l.digest == given("digest"))
VISIBLE: Final = and_(_v.published_at.is_not(None), _v.replaced_at.is_(None), _v.removed_at.is_(None))
_at_rest: Final = or_(
    among(_i.state, ImageState.PUBLISHED, ImageState.REMOVED),
    and_(_i.state == constant(ImageState.FAILED), _i.retryable == 0),
)
IN_USE: Final = or_(VISIBLE, not_(_at_rest))
"""What readers see, or may see soon: also what is visible and not recorded, as its image is being worked on until then.

A version that was collected is in use as well once its image is worked on: it may be what that is to be.
"""
MAY_COME_BACK: Final = and_(_v.published_at.is_not(None), _v.collected_at.is_(None))
WITH_LAYERS: Final = version_layers.join(image_versions, and_(_l.name == _v.name, _l.digest == _v.digest))
"""The layers that versions name, and the versions."""


def named_last(
    table: Table, *, naming: FromClause, this: ColumnElement[bool], otherwise: ColumnElement[Any]
) -> ColumnElement[Any]:
    """None while a version that is visible names something, else until when the last that did is kept.

    Parameters
    ----------
    table
        What is named.
    naming
        The versions, and what they name.
    this
        Whether that is what is asked about.
    otherwise
        For what no version names.
    """
    visible = and_(_v.replaced_at.is_(None), _v.removed_at.is_(None))
    until = later(func.coalesce(_v.keep_until, 0), func.coalesce(_v.removed_at, _v.replaced_at, 0))
    named = (
        select(case((visible, 1), else_=0).label("visible"), until.label("until"))
        .select_from(naming)
        .where(this, MAY_COME_BACK)
        .correlate(table)
        .subquery()
    )
    last = func.coalesce(func.max(named.c.until), otherwise)
    return select(case((func.max(named.c.visible) == 1, None), else_=last)).correlate(table).scalar_subquery()


NAME_LAYERS: Final = (
    update(layers)
    .values(named_last=named_last(layers, naming=WITH_LAYERS, this=_l.layer == layers.c.digest, otherwise=NOW))
    .where(layers.c.source == constant(LayerSource.REGISTRY), is_listed(layers.c.digest, "layers"))
)
RESOLVED: Final = (
    update(images)
    .values(state=constant(ImageState.FETCHING), digest=given("digest"), resolving=given("seconds"), updated_at=NOW)
    .where(_OF_NAME, _OF_ASK, _MINE)
    .returning(_i.name)
)
_described: Final = {name: given(name) for name in ("reference", "platforms", "images", "verified", "outputs")}
ADD_VERSION: Final = (
    insert(image_versions)
    .values(name=given("name"), digest=given("digest"), **_described)
    .on_conflict_do_update(index_elements=[_v.name, _v.digest], set_=_described)
)
DROP_DOCUMENTS: Final = delete(version_documents).where(
    version_documents.c.name == given("name"), version_documents.c.digest == given("digest")
)
ADD_DOCUMENT: Final = insert(version_documents).values(
    name=given("name"), digest=given("digest"), path=given("path"), content=given("content")
)
_layer: Final = {name: given(name) for name in ("diff_id", "size", "position")}
ADD_LAYER_OF_VERSION: Final = (
    insert(version_layers)
    .values(name=given("name"), digest=given("digest"), layer=given("layer"), **_layer)
    .on_conflict_do_update(index_elements=[_l.name, _l.digest, _l.layer], set_=_layer)
)
MISSING: Final = update(version_layers).values(missing=1).where(_LAYERS_OF_VERSION, is_listed(_l.layer, "layers"))
UNFINISHED: Final = (
    select(_l.layer)
    .distinct()
    .select_from(version_layers.join(images, and_(_l.name == _i.name, _l.digest == _i.digest)))
    .where(_i.state != constant(ImageState.PUBLISHED), _i.state != constant(ImageState.REMOVED), _l.missing != 0)
)
UNRECORDED: Final = (
    select(_l.layer, func.min(_l.diff_id).label("diff_id"), func.min(_l.size).label("size"))
    .select_from(WITH_LAYERS)
    .where(_l.missing != 0, _v.collected_at.is_(None), _l.layer.not_in(select(layers.c.digest)))
    .group_by(_l.layer)
)
_settled: Final = {
    "state": case((_i.again == 0, constant(ImageState.PUBLISHED)), else_=constant(ImageState.ASKED)),
    "again": 0,
    "attempts": 0,
    "share": None,
    "reason": None,
    "retryable": 0,
    "due": 0,
    "updated_at": NOW,
}
UNCHANGED: Final = update(images).values(**_settled, checked_at=NOW).where(_OF_NAME, _OF_ASK, _MINE)
SETTLE: Final = update(images).values(_settled).where(_OF_NAME, _OF_ASK, _MINE)
SHOW: Final = (
    update(images)
    .values(
        published=given("digest"),
        revision=given("revision"),
        published_at=NOW,
        checked_at=NOW,
        removed_at=None,
        publishing=given("seconds"),
    )
    .where(_OF_NAME, _MINE)
    .returning(_i.name)
)
READ: Final = select(*VERSION_COLUMNS).where(_VERSION, _v.collected_at.is_(None))
DOCUMENTS: Final = select(version_documents.c.path, version_documents.c.content).where(
    version_documents.c.name == given("name"), version_documents.c.digest == given("digest")
)
LAYERS: Final = select(_l.layer).where(_LAYERS_OF_VERSION)
_wanted: Final = mapped("wanted")
LAYERS_OF_VERSIONS: Final = (
    select(_l.name, _l.layer, _l.diff_id, _l.size)
    .select_from(_wanted.join(version_layers, and_(_l.name == _wanted.c.key, _l.digest == _wanted.c.value)))
    .order_by(_l.name, _l.position)
)
OF_NAME: Final = (
    select(*VERSION_COLUMNS)
    .where(_v.name == given("name"), _v.published_at.is_not(None))
    .order_by(_v.published_at.desc(), _v.digest)
)
REPLACE: Final = (
    update(image_versions)
    .values(replaced_at=NOW, keep_until=NOW + given("keep"))
    .where(_v.name == given("name"), _v.digest != given("digest"), VISIBLE)
    .returning(_v.digest)
)
SHOW_VERSION: Final = (
    update(image_versions)
    .values(published_at=NOW, replaced_at=None, removed_at=None, keep_until=None, collected_at=None)
    .where(_VERSION)
)
DROP_OTHER_LAYERS: Final = (
    delete(version_layers).where(_LAYERS_OF_VERSION, _l.layer.not_in(listed("named"))).returning(_l.layer)
)
REMOVE_VERSION: Final = (
    update(image_versions)
    .values(removed_at=NOW, keep_until=NOW + given("keep"))
    .where(_v.name == given("name"), VISIBLE)
    .returning(_v.digest)
)
REMOVE: Final = (
    update(images)
    .values(
        published=None,
        removed_at=NOW,
        updated_at=NOW,
        state=case((_OF_ASK, constant(ImageState.REMOVED)), else_=_i.state),
        reason=case((_OF_ASK, None), else_=_i.reason),
    )
    .where(_OF_NAME, _MINE)
    .returning(_i.name)
)
_unpublished: Final = image_versions.alias("unpublished")
DROP_UNPUBLISHED: Final = tuple(
    delete(table).where(
        table.c.name == given("name"),
        table.c.digest.in_(
            select(_unpublished.c.digest).where(
                _unpublished.c.name == given("name"),
                _unpublished.c.published_at.is_(None),
                _unpublished.c.digest.is_distinct_from(given("kept", _v.digest.type)),
            )
        ),
    )
    for table in (version_documents, version_layers, version_flats, image_versions)
)
"""Forget versions of a name that never became visible, but for one."""
_added: Final = {
    "state": constant(LayerState.PUBLISHED),
    "revision": given("revision"),
    "archive_size": given("archive_size"),
    "notes": given("notes"),
    "updated_at": NOW,
}
# One that the bucket has announced keeps that source.
ADD_LAYER: Final = (
    insert(layers)
    .values(
        digest=given("digest"),
        **_added,
        tree_size=given("tree_size"),
        source=constant(LayerSource.REGISTRY),
        announced_at=NOW,
    )
    .on_conflict_do_update(
        index_elements=[layers.c.digest],
        set_={
            **_added,
            "tree_size": func.coalesce(given("tree_size", NUMBER), layers.c.tree_size),
            "reason": None,
            "attempts": 0,
            "share": None,
            "retryable": 0,
            "due": 0,
            "claimed_by": None,
        },
    )
)
BROUGHT: Final = delete(collecting).where(is_listed(collecting.c.digest, "layers"))
"""Whoever took them out and records that late has nothing to record any more."""
