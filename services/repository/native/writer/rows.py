"""The rows of a catalog's entries."""

import sqlite3
import stat
from collections.abc import Iterable
from typing import Final, NamedTuple

from services.repository.native.records import HASH_SHIFT, ContentHash, EntryFlag, path_hash

__all__ = [
    "DIRECTORY_SIZE",
    "MARKER_MODE",
    "DirectoryRow",
    "Row",
    "file_row",
    "insert_rows",
    "link_row",
    "whiteout_row",
]

DIRECTORY_SIZE: Final = 4096
"""What catalogs say is the size of every directory."""

MARKER_MODE: Final = 0o600
"""Of the file that marks a nested catalog's root."""

_LINK_MODE: Final = stat.S_IFLNK | 0o777

Row = tuple[int, int, int, int, int, bytes | None, int, int, int, int | None, int, bytes, bytes, int, int, bytes | None]
"""The columns of an entry, in the order of the schema. Names are bytes of any encoding."""

# By name: in a catalog that was brought to this schema the columns may be in another order.
_INSERT: Final = (
    "INSERT INTO catalog (md5path_1, md5path_2, parent_1, parent_2, hardlinks, hash, size, mode, mtime, mtimens, "
    "flags, name, symlink, uid, gid, xattr) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?)"
)


class DirectoryRow(NamedTuple):
    """What the two rows of a nested catalog's root, here and in the catalog above, have in common."""

    mode: int
    uid: int
    gid: int
    mtime: int
    mtimens: int | None
    """None in catalogs that come from an older server."""
    links: int
    """Two, and one for each directory in it."""
    xattr: bytes | None = None

    def row(self, path: bytes, flags: int) -> Row:
        """Return the row at a path."""
        parent, _, name = path.rpartition(b"/")
        above = path_hash(parent) if path else (0, 0)
        return (
            *path_hash(path),
            *above,
            self.links,
            None,
            DIRECTORY_SIZE,
            self.mode,
            self.mtime,
            self.mtimens,
            flags,
            name,
            b"",
            self.uid,
            self.gid,
            self.xattr,
        )


def file_row(
    path: bytes,
    *,
    mode: int,
    name: ContentHash,
    size: int,
    flags: int = 0,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
) -> Row:
    """Return the row of a whole file."""
    parent, _, last = path.rpartition(b"/")
    here, above = path_hash(path), path_hash(parent)
    flags |= EntryFlag.FILE | (name.algorithm.number << HASH_SHIFT)
    return (*here, *above, 1, name.digest, size, stat.S_IFREG | mode, mtime, 0, flags, last, b"", uid, gid, None)


def link_row(path: bytes, target: bytes, *, uid: int = 0, gid: int = 0, mtime: int = 0) -> Row:
    """Return the row of a symbolic link."""
    parent, _, name = path.rpartition(b"/")
    here, above = path_hash(path), path_hash(parent)
    flags = EntryFlag.FILE | EntryFlag.SYMLINK
    return (*here, *above, 1, None, len(target), _LINK_MODE, mtime, 0, flags, name, target, uid, gid, None)


def insert_rows(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Add entries; the first of a new catalog must be its root's."""
    connection.executemany(_INSERT, rows)


def whiteout_row(path: bytes) -> Row:
    """Return the row of a 0:0 character device, by which overlayfs knows that a name is deleted."""
    parent, _, name = path.rpartition(b"/")
    flags = EntryFlag.FILE | EntryFlag.SPECIAL
    return (*path_hash(path), *path_hash(parent), 1, None, 0, stat.S_IFCHR, 0, 0, flags, name, b"", 0, 0, None)
