"""The state's tables, as statements name them; `migrations` makes them, and a test holds both to each other.

Columns that end with `_at` are times of day, for people, in seconds since the epoch; all others count by `SteadyClock`.
"""

from typing import Final

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, MetaData, Table

from services.common.database.columns import LINE, NUMBER, SECONDS, TEXTS, one_of, where

__all__ = ["clock", "copies", "creations", "images", "metadata", "thin_images", "wishes"]

metadata: Final = MetaData()

clock: Final = Table(
    "clock",
    metadata,
    Column("id", NUMBER, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("boot", TEXTS, nullable=False),
    Column("since_boot", SECONDS, nullable=False),
    Column("steady", SECONDS, nullable=False),
    Column("wall", SECONDS, nullable=False),
)
wishes: Final = Table(
    "wishes",
    metadata,
    Column("key", LINE, primary_key=True),
    Column("fingerprint", TEXTS, nullable=False),
    Column("due", SECONDS, nullable=False),
    Column("failures", NUMBER, nullable=False, server_default="0"),
    Column("reason", TEXTS),
    Column("polled_at", SECONDS),
)
images: Final = Table(
    "images",
    metadata,
    Column("name", LINE, primary_key=True),
    Column("digest", LINE, nullable=False),
    Column("changed_at", SECONDS, nullable=False),
    Column("checked_at", SECONDS, nullable=False),
    Column("reason", TEXTS),
    Column("missing", NUMBER, nullable=False, server_default="0"),
    Column("missing_since", SECONDS),
    Column("missing_last", SECONDS),
    Column("emptied", NUMBER, nullable=False, server_default="0"),
)
copies: Final = Table(
    "copies",
    metadata,
    Column("repository", LINE, primary_key=True),
    Column("name", LINE, ForeignKey(images.c.name), primary_key=True),
    Column("wish", LINE, nullable=False),
    Column("source", LINE, nullable=False),
    Column("gone_after", SECONDS),
    Column("dropped_after", SECONDS),
    Column("state", LINE, one_of("state", ("wanted", "asked", "published", "failed")), nullable=False),
    Column("wanted", LINE, nullable=False),
    Column("due", SECONDS, nullable=False, server_default="0"),
    Column("attempts", NUMBER, nullable=False, server_default="0"),
    Column("reason", TEXTS),
    Column("wanted_at", SECONDS, nullable=False),
    Column("asked_at", SECONDS),
    Column("published", LINE),
    Column("published_at", SECONDS),
    Column("dropped", SECONDS),
    Column("dropped_why", TEXTS),
)
creations: Final = Table(
    "creations",
    metadata,
    Column("digest", LINE, primary_key=True),
    Column("created", SECONDS),
)
thin_images: Final = Table(
    "thin_images",
    metadata,
    Column("reference", LINE, primary_key=True),
    Column("name", LINE, nullable=False),
    Column("repository", LINE, nullable=False),
    Column("layout", LINE, nullable=False),
    Column("platforms", TEXTS, nullable=False),
    Column("digest", LINE, nullable=False),
    Column("pushed", LINE),
    Column("pushed_at", SECONDS),
    Column("due", SECONDS, nullable=False, server_default="0"),
    Column("attempts", NUMBER, nullable=False, server_default="0"),
    Column("reason", TEXTS),
)

Index("images_missing", images.c.missing, **where("missing > 0"))
Index("copies_by_wish", copies.c.wish)
Index("copies_by_state", copies.c.state, copies.c.due)
Index("copies_by_name", copies.c.name)
Index("copies_dropped", copies.c.dropped, **where("dropped IS NOT NULL"))
Index("thin_images_by_name", thin_images.c.repository, thin_images.c.name)
