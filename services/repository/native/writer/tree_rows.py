"""Small trees that are generated, in the catalogs of one revision: directories, files and links, by their paths.

Link counts of directories and the counters of catalogs are kept right. What is there already as it is to be stays
untouched, so that its catalog is not written anew.
"""

import stat
from collections.abc import Sequence
from typing import Final

from services.common.layout import CATALOG_MARKER
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.records import EntryFlag, path_hash
from services.repository.native.writer.file_entries import COLUMNS, children, put_file, remove_file
from services.repository.native.writer.open_catalogs import NEW_DIRECTORY, OpenCatalog, OpenCatalogs
from services.repository.native.writer.rows import Row, file_row, link_row, whiteout_row
from services.repository.native.writer.splitting import has_nested

__all__ = ["TreeRows"]

_AT: Final = "WHERE md5path_1 = ? AND md5path_2 = ?"


class TreeRows:
    """Changes such trees; blocking.

    Paths begin with a slash, and do not end with one; parts of them that are missing are made, as directories with
    mode 0755 that belong to nobody in particular and to no time. Times are seconds since the epoch.

    Parameters
    ----------
    catalogs
        The catalogs of the revision.
    """

    def __init__(self, catalogs: OpenCatalogs) -> None:
        self._catalogs = catalogs

    def mode(self, path: bytes) -> int | None:
        """Return the type and the permissions of what is at a path; None where nothing is."""
        row = self._catalogs.above(path).catalog.database.execute(
            f"SELECT mode FROM catalog {_AT}",  # noqa: S608 - a constant
            path_hash(path),
        )
        found = row.fetchone()
        return None if found is None else int(found[0])

    def link_target(self, path: bytes) -> bytes | None:
        """Return the target of a symbolic link; None where something else is, or nothing."""
        return self._catalogs.above(path).catalog.link_target(path)

    def deletes(self, path: bytes) -> bool:
        """Tell whether overlayfs takes what is at a path for a deletion: a whiteout, or an opaque directory."""
        row = self._catalogs.above(path).catalog.database.execute(
            f"SELECT mode, size, xattr FROM catalog {_AT}",  # noqa: S608 - a constant
            path_hash(path),
        )
        mode, device, attributes = row.fetchone() or (0, 0, None)
        return (stat.S_ISDIR(mode) and attributes is not None) or (stat.S_ISCHR(mode) and device == 0)

    def names(self, path: bytes) -> Sequence[bytes]:
        """Return what is in a directory, but for the mark of a catalog that begins there."""
        return [name for name in self._catalogs.at(path).catalog.names(path) if name != CATALOG_MARKER.encode()]

    def make_directory(self, path: bytes) -> None:
        """Make a directory, where none is; one that is there stays as it is.

        Raises
        ------
        BrokenRepositoryError
            Something else is there, or above it.
        """
        parts = path.split(b"/")
        for depth in range(2, len(parts) + 1):
            place = b"/".join(parts[:depth])
            opened = self._catalogs.above(place)
            if opened.catalog.directory(place) is None:
                opened.catalog.insert(NEW_DIRECTORY.row(place, EntryFlag.DIRECTORY), "self_dir")
                opened.has_directory(place.rpartition(b"/")[0], 1)

    def make_catalog(self, path: bytes) -> None:
        """Make a directory a catalog of its own, unless others begin below it, as another program may leave it.

        Errors as `make_directory`.
        """
        self.make_directory(path.rpartition(b"/")[0])
        opened = self._catalogs.above(path)
        if opened.catalog.directory(path) is None:
            self._catalogs.add_nested(path)
        elif self._catalogs.at(path) is opened and not has_nested(opened.catalog, path):
            self._catalogs.split(path)

    def put_directory(self, path: bytes, *, mode: int = 0o755, uid: int = 0, gid: int = 0, mtime: int = 0) -> None:
        """Make a directory, or change what is said of one that is there. Errors as `make_directory`."""
        self.make_directory(path)
        above, inside = self._catalogs.above(path), self._catalogs.at(path)
        for opened in (above,) if above is inside else (above, inside):
            changed = opened.catalog.database.execute(
                "UPDATE catalog SET mode = :mode, uid = :uid, gid = :gid, mtime = :mtime, mtimens = 0 "
                "WHERE md5path_1 = :first AND md5path_2 = :second "
                "AND (mode, uid, gid, mtime, mtimens) IS NOT (:mode, :uid, :gid, :mtime, 0)",
                {
                    "mode": stat.S_IFDIR | mode,
                    "uid": uid,
                    "gid": gid,
                    "mtime": mtime,
                    **dict(zip(("first", "second"), path_hash(path), strict=True)),
                },
            )
            opened.changed |= changed.rowcount > 0

    def new_directory(self, path: bytes, *, xattr: bytes) -> None:
        """Make a directory, where nothing is, with extended attributes as catalogs hold them.

        Errors as `make_directory`.
        """
        self.make_directory(path.rpartition(b"/")[0])
        opened = self._catalogs.above(path)
        opened.catalog.insert(NEW_DIRECTORY._replace(xattr=xattr).row(path, EntryFlag.DIRECTORY), "self_dir")
        opened.has_directory(path.rpartition(b"/")[0], 1)

    def put_whiteout(self, path: bytes) -> None:
        """Put a deletion, as overlayfs has it, in the place of whatever is there. Errors as `put_file`."""
        self._put(path, whiteout_row(path))

    def put_file(
        self, path: bytes, content: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0, mtime: int = 0
    ) -> None:
        """Put a small file in the place of whatever is there.

        Raises
        ------
        BrokenRepositoryError
            A directory is there, or something that is none above it.
        """
        name = self._catalogs.put(content)
        self._put(path, file_row(path, mode=mode, name=name, size=len(content), uid=uid, gid=gid, mtime=mtime))

    def put_symlink(self, path: bytes, target: bytes, *, uid: int = 0, gid: int = 0, mtime: int = 0) -> None:
        """Put a symbolic link in the place of whatever is there. Errors as `put_file`."""
        self._put(path, link_row(path, target, uid=uid, gid=gid, mtime=mtime))

    def remove(self, path: bytes) -> bool:
        """Remove whatever is at a path, with everything below it; return whether something was there."""
        mode = self.mode(path)
        if mode is None:
            return False
        opened = self._catalogs.above(path)
        if not stat.S_ISDIR(mode):
            self._remove_file(opened, path)
        elif not self._catalogs.detach(path):
            self._remove_directory(opened, path)
            opened.has_directory(path.rpartition(b"/")[0], -1)
        return True

    def prune(self, path: bytes, *, top: bytes = b"") -> None:
        """Remove a directory that is empty, and those above it that are then, up to one that stays."""
        while path != top and stat.S_ISDIR(self.mode(path) or 0) and not self.names(path):
            self.remove(path)
            path = path.rpartition(b"/")[0]

    def _put(self, path: bytes, row: Row) -> None:
        self.make_directory(path.rpartition(b"/")[0])
        mode = self.mode(path)
        if mode is not None and stat.S_ISDIR(mode):
            raise BrokenRepositoryError(f"{path.decode(errors='backslashreplace')} is a directory in the repository")
        opened = self._catalogs.above(path)
        there = opened.catalog.database.execute(f"SELECT {COLUMNS} FROM catalog {_AT}", row[:2]).fetchone()  # noqa: S608
        if there != row:
            put_file(opened.catalog, row)
            opened.changed = True

    def _remove_directory(self, opened: OpenCatalog, path: bytes) -> None:
        """Remove a directory that is no catalog of its own, and everything below it."""
        waiting, found = [path], []
        while waiting:
            directory = waiting.pop()
            found.append(directory)
            for child in children(opened.catalog, directory):
                place = directory + b"/" + child.name
                if not stat.S_ISDIR(child.mode):
                    self._remove_file(opened, place)
                elif not self._catalogs.detach(place):
                    waiting.append(place)
        for directory in found:
            opened.catalog.remove(directory, "self_dir")
        opened.changed = opened.has_gaps = True

    @staticmethod
    def _remove_file(opened: OpenCatalog, path: bytes) -> None:
        remove_file(opened.catalog, path)
        opened.changed = opened.has_gaps = True
