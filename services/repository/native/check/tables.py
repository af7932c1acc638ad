"""Checks that a catalog has the tables that clients read."""

from collections.abc import Mapping
from typing import Final

from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.reader.catalog import Catalog
from services.repository.native.reader.entries import show_path

__all__ = ["check_tables"]

_NANOSECONDS_SINCE: Final = 7
_TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "catalog": ("md5path_1", "md5path_2"),
    "chunks": ("md5path_1", "md5path_2", "offset", "size"),
    "nested_catalogs": ("path",),
    "statistics": ("counter",),
    "properties": ("key",),
}
"""Tables of every catalog and the columns of their primary keys."""


def check_tables(catalog: Catalog) -> tuple[list[str], bool]:
    """Look at the tables of a catalog.

    Returns
    -------
    tuple
        What is wrong, and whether other checks can rely on the tables nevertheless.

    Raises
    ------
    BrokenRepositoryError
        The file is damaged.
    """
    database = catalog.database
    for (report,) in database.rows("PRAGMA quick_check(1)"):
        if report != b"ok":
            raise BrokenRepositoryError(f"{database.name} is no sound SQLite file: {report!r}")
    found = dict(database.rows("SELECT name, wr FROM pragma_table_list WHERE type = 'table'"))
    wrong = [what for table in _TABLES if (what := _wrong_table(catalog, table, found)) is not None]
    columns = {name for (name,) in database.rows("SELECT name FROM pragma_table_info('catalog')")}
    if not wrong and catalog.schema_revision >= _NANOSECONDS_SINCE and b"mtimens" not in columns:
        wrong.append("its catalog has the schema revision 7 and no column mtimens, which makes clients crash")
    sound = not wrong
    if b"idx_catalog_parent" not in {name for (name,) in database.rows("SELECT name FROM sqlite_master")}:
        wrong.append("its catalog has no index idx_catalog_parent, so that clients list its directories slowly")
    return wrong, sound


def _wrong_table(catalog: Catalog, table: str, found: Mapping[bytes, int]) -> str | None:
    without_rowid = found.get(table.encode())
    if without_rowid is None:
        return f"its catalog has no table {table}"
    if without_rowid:
        return f"the table {table} of its catalog is WITHOUT ROWID, which makes clients abort"
    rows = catalog.database.rows("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (table,))
    key, wanted = ", ".join(show_path(name) for (name,) in rows), ", ".join(_TABLES[table])
    if key != wanted:
        return f"the table {table} of its catalog has the primary key ({key}) instead of ({wanted})"
    return None
