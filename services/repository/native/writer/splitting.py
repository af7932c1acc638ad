"""Splitting a catalog that has grown: a directory in it gets a catalog of its own."""

import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.records import EntryFlag, path_hash
from services.repository.native.writer.catalog import Catalog
from services.repository.native.writer.file_entries import COLUMNS, counted
from services.repository.native.writer.rows import Row, insert_rows

__all__ = ["entries", "has_nested", "split", "weights"]

_AT: Final = "WHERE md5path_1 = ? AND md5path_2 = ?"
_BELOW: Final = """
WITH RECURSIVE below (top_1, top_2, here_1, here_2) AS (
SELECT md5path_1, md5path_2, md5path_1, md5path_2 FROM catalog
WHERE parent_1 = ? AND parent_2 = ? AND flags & 3 = 1
UNION ALL
SELECT below.top_1, below.top_2, md5path_1, md5path_2
FROM catalog JOIN below ON parent_1 = here_1 AND parent_2 = here_2)
"""
"""Everything below the directories in a directory that are not in catalogs of their own."""


def entries(catalog: Catalog) -> int:
    """Return how many entries a catalog has."""
    (number,) = catalog.database.execute("SELECT count(*) FROM catalog").fetchone()
    return int(number)


def weights(catalog: Catalog, path: bytes) -> Mapping[bytes, int]:
    """Return how many entries are in the directories of a directory, and below them, by their names."""
    rows = catalog.database.execute(
        f"{_BELOW} SELECT CAST(top.name AS BLOB), count(*) FROM below JOIN catalog top "  # noqa: S608
        "ON top.md5path_1 = top_1 AND top.md5path_2 = top_2 GROUP BY top_1, top_2",
        path_hash(path),
    )
    return dict(rows.fetchall())


def has_nested(catalog: Catalog, path: bytes) -> bool:
    """Tell whether catalogs begin below a directory, or other revisions are shown there."""
    prefix = path + b"/"
    return any(
        catalog.database.execute(
            f"SELECT 1 FROM {table} WHERE CAST(substr(path, 1, ?) AS BLOB) = ?",  # noqa: S608
            (len(prefix.decode(errors="replace")), prefix),
        ).fetchone()
        for table in ("nested_catalogs", "bind_mountpoints")
    )


def split(catalog: Catalog, path: bytes, *, where: str) -> Catalog:
    """Move everything below a directory, where no catalog begins, to a catalog of its own, and return that.

    What is said of it besides, `attach` says when it has been stored.
    """
    root = catalog.directory(path)
    if root is None:
        raise BrokenRepositoryError(f"{where}: /{path.decode()} is not there any more")
    new = Catalog.create(path, root, where=where)
    with ExitStack() as failed:
        failed.callback(new.close)
        counts: Counter[str] = Counter()
        waiting = [path_hash(path)]
        while waiting:
            rows: Sequence[Row] = catalog.database.execute(
                f"SELECT {COLUMNS} FROM catalog WHERE parent_1 = ? AND parent_2 = ?",  # noqa: S608
                waiting.pop(),
            ).fetchall()
            for row in rows:
                counts += counted(catalog, row)
                _move(catalog, row, new)
                if stat.S_ISDIR(row[7]):
                    waiting.append(row[:2])
        new.count({**counts, "self_xattr": counts["self_xattr"] + int(root.xattr is not None)})
        catalog.count({name: -number for name, number in counts.items()})
        catalog.database.execute(
            f"UPDATE catalog SET flags = flags | ? {_AT}",  # noqa: S608
            (EntryFlag.NESTED_MOUNTPOINT.value, *path_hash(path)),
        )
        failed.pop_all()
    return new


def _move(catalog: Catalog, row: Row, to: Catalog) -> None:
    insert_rows(to.database, [row])
    chunks = catalog.database.execute(f"SELECT * FROM chunks {_AT}", row[:2]).fetchall()  # noqa: S608
    to.database.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?, ?)", chunks)
    catalog.database.execute(f"DELETE FROM chunks {_AT}", row[:2])  # noqa: S608
    catalog.database.execute(f"DELETE FROM catalog {_AT}", row[:2])  # noqa: S608
