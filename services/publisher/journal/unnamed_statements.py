"""What the journal says to its database about layers that are named by no image that is visible."""

from typing import Final

from sqlalchemy import and_, delete, exists, func, not_, select, update

from services.publisher.journal.expressions import ANY, NOW, constant, given, insert, is_listed, listed
from services.publisher.journal.model import LayerSource, LayerState
from services.publisher.journal.tables import collecting, image_versions, images, layers, version_layers, watch, watched
from services.publisher.journal.version_statements import IN_USE, MAY_COME_BACK, WITH_LAYERS
from services.publisher.journal.watch_statements import due, forget_watched, note_unnamed

_c: Final = layers.c
_i: Final = images.c
_v: Final = image_versions.c
_PUBLISHED: Final = _c.state == constant(LayerState.PUBLISHED)
_FETCHED: Final = and_(_c.source == constant(LayerSource.REGISTRY), _PUBLISHED)
_GIVEN: Final = is_listed(_c.digest, "digests")
_NAMING: Final = version_layers.c.layer == _c.digest
_COMMITTED: Final = and_(
    _c.source == constant(LayerSource.BUCKET),
    _PUBLISHED,
    _GIVEN,
    not_(exists().select_from(WITH_LAYERS).where(_NAMING, _v.collected_at.is_(None), _v.keep_until > NOW)),
)
"""What came by commits, and is kept for no version that can be brought back."""
_UNUSED: Final = not_(exists().select_from(WITH_LAYERS.join(images, _i.name == _v.name)).where(_NAMING, IN_USE))
"""What is named by no version that is visible, or that may become so: that of an image which is being worked on."""

RAN: Final = update(watch).values(seconds=watch.c.seconds + given("elapsed"))
FORGET_WATCHED: Final = forget_watched(watched, layers, key="digest")
WATCH: Final = note_unnamed(watched, layers, _FETCHED, key="digest")
DUE: Final = due(watched, layers, (_c.digest, _c.tree_size, _c.named_last), _FETCHED, _UNUSED, key="digest")
COMMITTED: Final = select(_c.digest, _c.tree_size, _c.updated_at).where(_COMMITTED, _UNUSED).order_by(_c.digest)
RELEASE: Final = update(layers).values(source=constant(LayerSource.REGISTRY), named_last=NOW).where(_COMMITTED, _UNUSED)
CLAIMABLE: Final = select(_c.digest).where(_FETCHED, _c.named_last.is_not(None), _GIVEN, _UNUSED).order_by(_c.digest)
VERSIONS: Final = (
    select(_v.name, _v.digest)
    .distinct()
    .select_from(WITH_LAYERS)
    .where(is_listed(version_layers.c.layer, "claimed"), MAY_COME_BACK)
)
GIVE_UP: Final = (
    update(image_versions).values(collected_at=NOW).where(_v.name == given("name"), _v.digest == given("digest"))
)
COLLECT: Final = (
    insert(collecting)
    .from_select(["digest"], select(listed("claimed").subquery().c.value).where(ANY))
    .on_conflict_do_nothing()
)
COLLECTING: Final = select(collecting.c.digest)
_taken_out: Final = and_(_GIVEN, exists().where(collecting.c.digest == _c.digest))
GONE: Final = delete(layers).where(_FETCHED, _taken_out)
ANNOUNCED_MEANWHILE: Final = (
    update(layers)
    .values(state=constant(LayerState.ANNOUNCED), retryable=0, due=0, updated_at=NOW)
    .where(_PUBLISHED, _taken_out)
)
COLLECTED: Final = delete(collecting).where(is_listed(collecting.c.digest, "digests"))
SUMMARY: Final = select(func.count().label("layers"), func.coalesce(func.sum(_c.tree_size), 0).label("size")).where(
    _c.named_last.is_not(None), _FETCHED
)
