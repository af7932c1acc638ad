"""What the journal says to its database about flat images."""

from typing import Final

from sqlalchemy import and_, cast, delete, exists, not_, select, update

from services.publisher.journal.expressions import ANY, NOW, given, insert, is_listed, listed, mapped
from services.publisher.journal.tables import SECONDS, flats, image_versions, images, version_flats, watched_flats
from services.publisher.journal.version_statements import IN_USE, named_last
from services.publisher.journal.watch_statements import due, forget_watched, note_unnamed

_c: Final = flats.c
_f: Final = version_flats.c
_FLATS_OF_VERSION: Final = and_(_f.name == given("name"), _f.digest == given("digest"))
_naming: Final = version_flats.join(
    image_versions, and_(_f.name == image_versions.c.name, _f.digest == image_versions.c.digest)
)
_UNUSED: Final = not_(
    exists()
    .select_from(_naming.join(images, image_versions.c.name == images.c.name))
    .where(_f.config == _c.config, IN_USE)
)

NAME_FLATS: Final = (
    update(flats)
    .values(named_last=named_last(flats, naming=_naming, this=_f.config == _c.config, otherwise=NOW + given("keep")))
    .where(is_listed(_c.config, "flats"))
)
FLATS_OF_NAME: Final = select(_f.config).where(_f.name == given("name"))
DROP_OTHER_FLATS: Final = (
    delete(version_flats).where(_FLATS_OF_VERSION, _f.config.not_in(listed("flats"))).returning(_f.config)
)
_made: Final = listed("flats").subquery().c.value
ADD_FLATS: Final = insert(flats).from_select(["config"], select(_made).where(ANY)).on_conflict_do_nothing()
ADD_FLATS_OF_VERSION: Final = (
    insert(version_flats)
    .from_select(
        ["name", "digest", "config"],
        select(given("name", _f.name.type), given("digest", _f.digest.type), _made).where(ANY),
    )
    .on_conflict_do_nothing()
)
REPORT_FLAT: Final = update(flats).values(report=given("report")).where(_c.config == given("config"))

ALL: Final = select(_c.config)
REPORTS: Final = (
    select(_c.config, _c.report)
    .select_from(version_flats.join(flats, _f.config == _c.config))
    .where(_FLATS_OF_VERSION, _c.report.is_not(None))
    .order_by(_c.config)
)
FORGET_WATCHED: Final = forget_watched(watched_flats, flats, key="config")
WATCH: Final = note_unnamed(watched_flats, flats, key="config")
DUE: Final = due(watched_flats, flats, (_c.config, _c.named_last), _UNUSED, key="config")
_due: Final = mapped("due")
STILL_DUE: Final = (
    select(_c.config)
    .select_from(flats.join(_due, and_(_c.config == _due.c.key, _c.named_last == cast(_due.c.value, SECONDS))))
    .where(_UNUSED)
)
STILL_UNNAMED: Final = select(_c.config).where(is_listed(_c.config, "configs"), _c.named_last.is_not(None))
COLLECTED: Final = tuple(
    delete(table).where(is_listed(table.c.config, "configs")) for table in (version_flats, watched_flats, flats)
)
