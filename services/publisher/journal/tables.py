"""The journal's tables, as statements name them; `migrations` makes them, and a test holds both to each other.

Every time is in seconds since the epoch. What is true or false is 1 or 0, in both databases. Names, digests and states
are compared by their bytes, whatever the database's own order of texts is.
"""

from typing import Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    Index,
    LargeBinary,
    MetaData,
    Table,
)

from services.common.database.columns import LINE as _LINE
from services.common.database.columns import NUMBER, SECONDS
from services.common.database.columns import TEXTS as _TEXTS
from services.common.database.columns import one_of as _one_of
from services.common.database.columns import where as _where
from services.publisher.journal.image_model import ImageState
from services.publisher.journal.model import LayerSource, LayerState

__all__ = [
    "NUMBER",
    "SECONDS",
    "WAITING",
    "collecting",
    "flats",
    "image_versions",
    "images",
    "layers",
    "metadata",
    "pause",
    "publishers",
    "transactions",
    "version_documents",
    "version_flats",
    "version_layers",
    "watch",
    "watched",
    "watched_flats",
]

WAITING: Final = "CASE state WHEN 'announced' THEN 1 WHEN 'failed' THEN retryable ELSE 0 END <> 0"
"""Which layers are to be worked on, in the words of the index that has them in their order: SQLite and PostgreSQL use
it for no other words. With OR instead, SQLite takes an index of states, and sorts all layers for each claim."""

metadata: Final = MetaData()


layers: Final = Table(
    "layers",
    metadata,
    Column("digest", _LINE, CheckConstraint("length(digest) = 64"), primary_key=True),
    Column("state", _LINE, _one_of("state", LayerState), nullable=False),
    Column("attempts", NUMBER, nullable=False, server_default="0"),
    Column("share", NUMBER, CheckConstraint("share > 0")),
    Column("reason", _TEXTS),
    Column("retryable", NUMBER, nullable=False, server_default="0"),
    Column("due", SECONDS, nullable=False, server_default="0"),
    Column("revision", NUMBER),
    Column("announced_at", SECONDS, nullable=False),
    Column("updated_at", SECONDS, nullable=False),
    Column("archive_size", NUMBER),
    Column("tree_size", NUMBER),
    Column("notes", _TEXTS),
    Column("elsewhere", NUMBER, nullable=False, server_default="0"),
    Column("source", _LINE, _one_of("source", LayerSource), nullable=False, server_default="bucket"),
    Column("named_last", SECONDS),
    Column("claimed_by", _LINE),
)
transactions: Final = Table(
    "transactions",
    metadata,
    Column("token", _LINE, primary_key=True),
    Column("process", _TEXTS),
    Column("publisher", _LINE),
)
pause: Final = Table(
    "pause",
    metadata,
    Column("id", NUMBER, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("since", SECONDS, nullable=False),
    Column("reason", _TEXTS, nullable=False),
)
images: Final = Table(
    "images",
    metadata,
    Column("name", _LINE, primary_key=True),
    Column("registry", _LINE, nullable=False),
    Column("ask", NUMBER, nullable=False, server_default="1"),
    Column("again", NUMBER, nullable=False, server_default="0"),
    Column("reference", _TEXTS, nullable=False),
    Column("asked", _LINE, CheckConstraint("length(asked) = 64")),
    Column("digest", _LINE, CheckConstraint("length(digest) = 64")),
    Column("published", _LINE, CheckConstraint("length(published) = 64")),
    Column("platforms", _TEXTS, nullable=False),
    Column("project", _TEXTS),
    Column("priority", NUMBER, nullable=False),
    Column("verified", _TEXTS),
    Column("keep", SECONDS),
    Column("state", _LINE, _one_of("state", ImageState), nullable=False),
    Column("attempts", NUMBER, nullable=False, server_default="0"),
    Column("share", NUMBER, CheckConstraint("share > 0")),
    Column("reason", _TEXTS),
    Column("retryable", NUMBER, nullable=False, server_default="0"),
    Column("due", SECONDS, nullable=False, server_default="0"),
    Column("revision", NUMBER),
    Column("bytes_known", NUMBER),
    Column("bytes_missing", NUMBER),
    Column("resolving", SECONDS),
    Column("fetching", SECONDS),
    Column("publishing", SECONDS),
    Column("asked_at", SECONDS, nullable=False),
    Column("checked_at", SECONDS),
    Column("published_at", SECONDS),
    Column("removed_at", SECONDS),
    Column("updated_at", SECONDS, nullable=False),
    Column("outputs", _TEXTS),
    Column("claimed_by", _LINE),
)
image_versions: Final = Table(
    "image_versions",
    metadata,
    Column("name", _LINE, primary_key=True),
    Column("digest", _LINE, CheckConstraint("length(digest) = 64"), primary_key=True),
    Column("reference", _TEXTS, nullable=False),
    Column("platforms", _TEXTS, nullable=False),
    Column("images", _TEXTS, nullable=False),
    Column("verified", _TEXTS),
    Column("published_at", SECONDS),
    Column("replaced_at", SECONDS),
    Column("removed_at", SECONDS),
    Column("keep_until", SECONDS),
    Column("collected_at", SECONDS),
    Column("outputs", _TEXTS),
)
version_documents: Final = Table(
    "version_documents",
    metadata,
    Column("name", _LINE, primary_key=True),
    Column("digest", _LINE, primary_key=True),
    Column("path", _LINE, primary_key=True),
    Column("content", LargeBinary(), nullable=False),
)
version_layers: Final = Table(
    "version_layers",
    metadata,
    Column("name", _LINE, primary_key=True),
    Column("digest", _LINE, primary_key=True),
    Column("layer", _LINE, CheckConstraint("length(layer) = 64"), primary_key=True),
    Column("diff_id", _LINE, CheckConstraint("length(diff_id) = 64"), nullable=False),
    Column("size", NUMBER, nullable=False),
    Column("position", NUMBER, nullable=False),
    Column("missing", NUMBER, nullable=False, server_default="0"),
)
watch: Final = Table(
    "watch",
    metadata,
    Column("id", NUMBER, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("seconds", SECONDS, nullable=False),
)
watched: Final = Table(
    "watched",
    metadata,
    Column("digest", _LINE, primary_key=True),
    Column("named_last", SECONDS, nullable=False),
    Column("since", SECONDS, nullable=False),
)
collecting: Final = Table(
    "collecting",
    metadata,
    Column("digest", _LINE, primary_key=True),
)
flats: Final = Table(
    "flats",
    metadata,
    Column("config", _LINE, CheckConstraint("length(config) = 64"), primary_key=True),
    Column("named_last", SECONDS),
    Column("report", _TEXTS),
)
version_flats: Final = Table(
    "version_flats",
    metadata,
    Column("name", _LINE, primary_key=True),
    Column("digest", _LINE, primary_key=True),
    Column("config", _LINE, CheckConstraint("length(config) = 64"), primary_key=True),
)
watched_flats: Final = Table(
    "watched_flats",
    metadata,
    Column("config", _LINE, primary_key=True),
    Column("named_last", SECONDS, nullable=False),
    Column("since", SECONDS, nullable=False),
)

publishers: Final = Table(
    "publishers",
    metadata,
    Column("id", _LINE, primary_key=True),
    Column("name", _TEXTS, nullable=False),
    Column("started_at", SECONDS, nullable=False),
    Column("seen_at", SECONDS, nullable=False),
    Column("lease_until", SECONDS, nullable=False),
    Column("leads", NUMBER, nullable=False, server_default="0"),
    Column("left_at", SECONDS),
)
"""Its times are by the database's clock, which all publishers share."""

Index("layers_by_state", layers.c.state, layers.c.announced_at)
Index("layers_by_time", layers.c.updated_at, layers.c.digest)
Index("layers_by_state_and_time", layers.c.state, layers.c.updated_at, layers.c.digest)
Index("layers_by_outcome", layers.c.state, layers.c.retryable, layers.c.announced_at)
Index("layers_elsewhere", layers.c.state, layers.c.retryable, **_where("elsewhere <> 0"))
Index("layers_unnamed", layers.c.named_last, **_where("named_last IS NOT NULL"))
Index("layers_claimed", layers.c.claimed_by, **_where("claimed_by IS NOT NULL"))
Index("layers_waiting", layers.c.announced_at, layers.c.digest, layers.c.due, **_where(WAITING))
Index("images_by_turn", images.c.state, images.c.priority.desc(), images.c.asked_at)
Index("images_by_outcome", images.c.state, images.c.retryable, images.c.asked_at)
Index("images_claimed", images.c.claimed_by, **_where("claimed_by IS NOT NULL"))
Index("versions_by_layer", version_layers.c.layer)
Index("versions_by_flat", version_flats.c.config)
