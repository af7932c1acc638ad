"""The tables of hints in a PostgreSQL database, which the migrations of the state make."""

from typing import Final

from sqlalchemy import Column, Identity, MetaData, Table, UniqueConstraint

from services.common.database.columns import LINE, NUMBER

__all__ = ["deliveries", "metadata", "pending"]

metadata: Final = MetaData()

pending: Final = Table(
    "pending_hints",
    metadata,
    Column("registry", LINE, primary_key=True),
    Column("repository", LINE, primary_key=True),
    Column("tag", LINE, primary_key=True),
    Column("sequence", NUMBER, Identity(always=True), nullable=False),
    UniqueConstraint("sequence"),
)
"""`tag` is empty for any."""
deliveries: Final = Table(
    "hint_deliveries",
    metadata,
    Column("number", NUMBER, Identity(always=True), primary_key=True),
    Column("endpoint", LINE, nullable=False),
    Column("identity", LINE, nullable=False),
    UniqueConstraint("endpoint", "identity"),
)
