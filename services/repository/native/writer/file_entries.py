"""Files in a catalog: they are put, replaced and removed, with all that the catalog says and counts of them."""

import stat
from collections import Counter
from typing import Final, NamedTuple

from services.repository.native.records import EntryFlag, path_hash
from services.repository.native.writer.catalog import Catalog
from services.repository.native.writer.rows import Row, insert_rows

__all__ = ["COLUMNS", "Child", "child_at", "children", "chunks", "counted", "put_file", "remove_file"]

COLUMNS: Final = (
    "md5path_1, md5path_2, parent_1, parent_2, hardlinks, hash, size, mode, mtime, mtimens, flags, "
    "CAST(name AS BLOB), CAST(symlink AS BLOB), uid, gid, xattr"
)
"""Those of a `Row`."""
_AT: Final = "WHERE md5path_1 = ? AND md5path_2 = ?"
_UPDATE: Final = (
    "UPDATE catalog SET hardlinks = ?, hash = ?, size = ?, mode = ?, mtime = ?, mtimens = ?, flags = ?, "
    "symlink = CAST(? AS TEXT), uid = ?, gid = ?, xattr = ? WHERE md5path_1 = ? AND md5path_2 = ?"
)


class Child(NamedTuple):
    """An entry of a directory."""

    name: bytes
    mode: int
    flags: int
    digest: bytes | None
    """Of the object, where it is a file that has one."""
    size: int
    """In bytes."""
    links: int
    """The group of hard links in the upper half, their number in the lower."""


def children(catalog: Catalog, path: bytes) -> list[Child]:
    """Return what is in a directory."""
    rows = catalog.database.execute(
        "SELECT CAST(name AS BLOB), mode, flags, hash, size, hardlinks FROM catalog "
        "WHERE parent_1 = ? AND parent_2 = ?",
        path_hash(path),
    )
    return [Child(*row) for row in rows]


def child_at(catalog: Catalog, path: bytes) -> Child | None:
    """Return what is at a path; None where nothing is."""
    row = catalog.database.execute(
        f"SELECT CAST(name AS BLOB), mode, flags, hash, size, hardlinks FROM catalog {_AT}",  # noqa: S608
        path_hash(path),
    ).fetchone()
    return None if row is None else Child(*row)


def chunks(catalog: Catalog, path: bytes) -> list[bytes]:
    """Return the digests of the objects that a large file consists of, in their order."""
    return _chunks(catalog, path_hash(path))


def _chunks(catalog: Catalog, at: tuple[int, int]) -> list[bytes]:
    rows = catalog.database.execute(f"SELECT hash FROM chunks {_AT} ORDER BY offset", at)  # noqa: S608
    return [digest for (digest,) in rows]


def put_file(catalog: Catalog, row: Row) -> None:
    """Put a file in its place, whether one is there or not, and count it."""
    before = catalog.database.execute(f"SELECT {COLUMNS} FROM catalog {_AT}", row[:2]).fetchone()  # noqa: S608
    if before is None:
        insert_rows(catalog.database, [row])
    else:
        # In its place, so that a catalog is stored anew in few pieces, and rows leave no gaps.
        catalog.count({name: -number for name, number in counted(catalog, before).items()})
        catalog.database.execute(f"DELETE FROM chunks {_AT}", row[:2])  # noqa: S608
        catalog.database.execute(
            _UPDATE,
            (*row[4:11], *row[12:], *row[:2]),
        )
    catalog.count(counted(catalog, row))


def remove_file(catalog: Catalog, path: bytes) -> None:
    """Remove a file, and count it no more."""
    at = path_hash(path)
    row = catalog.database.execute(f"SELECT {COLUMNS} FROM catalog {_AT}", at).fetchone()  # noqa: S608
    catalog.count({name: -number for name, number in counted(catalog, row).items()})
    catalog.database.execute(f"DELETE FROM chunks {_AT}", at)  # noqa: S608
    catalog.database.execute(f"DELETE FROM catalog {_AT}", at)  # noqa: S608


def counted(catalog: Catalog, row: Row) -> Counter[str]:
    """Return what the statistics say of an entry that is in the catalog."""
    size, mode, flags = row[6], row[7], row[10]
    counts = Counter(self_xattr=int(row[15] is not None))
    if stat.S_ISDIR(mode):
        counts["self_dir"] = 1
    elif stat.S_ISLNK(mode):
        counts["self_symlink"] = 1
    elif not stat.S_ISREG(mode):
        counts["self_special"] = 1
    else:
        counts.update(self_regular=1, self_file_size=size)
        if flags & EntryFlag.CHUNKED:
            counts.update(self_chunked=1, self_chunked_size=size, self_chunks=len(_chunks(catalog, row[:2])))
        if flags & EntryFlag.EXTERNAL:
            counts.update(self_external=1, self_external_file_size=size)
    return counts
