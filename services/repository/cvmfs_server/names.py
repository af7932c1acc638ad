"""Names that mean something to CVMFS wherever they lie, and what else of a layer CVMFS does not keep.

- `.cvmfsgraft-NAME` replaces the content of NAME by whatever hash it holds, and one that is malformed makes the whole
  publish fail (CernVM-FS, cvmfs/sync_item.cc). A layer with such a file is refused: its files would not be what the
  layer's digest says.
- `.cvmfsbundles` makes the whole publish fail, and is refused.
- `.cvmfscatalog`, as a file, makes its directory a nested catalog; the file itself is kept. As anything else it is
  refused.
- Names that begin with `.wh.` count as deletions, whatever their case (cvmfs/sync_union_overlayfs.cc): `.WH.file` would
  vanish, and `file` with it. They never get here: to the reader of archives they are deletions, or refused.
- A symbolic link to `(overlay-whiteout)` counts as a deletion as well, and is refused.
- Paths have the place of the layer in the repository before them, and that of the repository on this machine.
- Clients expand `$(NAME)` in the targets of symbolic links, and hard links become files of their own.
- Extended attributes are kept if the repository's settings say so, with names and values of up to 255 bytes. All of one
  file must find room on the file system of the scratch area, which bounds the times of files as well.
"""

import time
from typing import Final

from services.common.archive.entry import Entry
from services.common.archive.errors import ArchiveLimitError, UnsafeArchiveError
from services.common.archive.layer import LayerTree
from services.common.archive.notes import Notes, show
from services.common.archive.reader import TarReader
from services.common.layout import CATALOG_MARKER
from services.repository.cvmfs_server.scratch import Scratch

__all__ = ["CvmfsNames"]

_GRAFT_PREFIX: Final = b".cvmfsgraft-"
_BUNDLES: Final = b".cvmfsbundles"
_CATALOG: Final = CATALOG_MARKER.encode()
_OWN: Final = b".cvmfs"
"""What all of CVMFS's own names begin with."""
_VARIANT: Final = b"$("
_WHITEOUT_TARGET: Final = b"(overlay-whiteout)"
_LONGEST_XATTR: Final = 255
"""Bytes of an extended attribute's name or value; one byte more counts as none, what is longer is dropped."""
_LONGEST_PATH: Final = 4095
"""Bytes of a path, as PATH_MAX leaves it."""


class CvmfsNames:
    """A layer's tree that looks at the names of what goes into another one.

    Parameters
    ----------
    tree
        The other one.
    notes
        Told what CVMFS does not keep.
    keeps_xattrs
        Whether the repository keeps extended attributes.
    before
        Bytes that come before the paths of a layer where a transaction writes them.
    scratch
        Tells what the file system of the scratch area holds.
    """

    def __init__(self, tree: LayerTree, notes: Notes, *, keeps_xattrs: bool, before: int, scratch: Scratch) -> None:
        self._tree = tree
        self._notes = notes
        self._keeps_xattrs = keeps_xattrs
        self._longest = _LONGEST_PATH - before
        self._scratch = scratch
        self._moved = 0
        self._first_moved = ""
        self._links = 0
        self._stripped = 0

    @property
    def size(self) -> int:
        """Size of the other tree."""
        return self._tree.size

    def directory(self, path: bytes, entry: Entry) -> None:
        """Make a directory."""
        self._refuse(path)
        self._look_at(path, entry)
        self._tree.directory(path, entry)

    def file(self, path: bytes, entry: Entry, data: TarReader) -> None:
        """Make a file."""
        if _name(path) == _CATALOG:
            self._notes.add(f"{show(path)}: makes its directory a nested catalog")
            self._check_length(path)
            _check_names(path.removesuffix(_CATALOG))
        else:
            self._refuse(path)
        self._look_at(path, entry)
        self._tree.file(path, entry, data)

    def symlink(self, path: bytes, entry: Entry) -> None:
        """Make a symbolic link."""
        self._refuse(path)
        self._look_at(path, entry)
        if entry.link == _WHITEOUT_TARGET:
            raise UnsafeArchiveError(f"{show(path)}: CVMFS takes a link to {show(entry.link)} for a deletion")
        if _VARIANT in entry.link:
            self._notes.add(f"{show(path)}: clients of CVMFS expand the variable in its target {show(entry.link)}")
        self._tree.symlink(path, entry)

    def node(self, path: bytes, entry: Entry) -> None:
        """Make a device or fifo."""
        self._refuse(path)
        self._look_at(path, entry)
        self._tree.node(path, entry)

    def link(self, path: bytes, target: bytes) -> bool:
        """Make a hard link."""
        self._refuse(path)
        made = self._tree.link(path, target)
        self._links += made
        return made

    def vacate(self, path: bytes) -> None:
        """Remove what is there."""
        self._tree.vacate(path)

    def imply(self, path: bytes) -> bytes:
        """Make a directory unless it exists."""
        self._refuse(path)
        return self._tree.imply(path)

    def is_directory(self, path: bytes) -> bool | None:
        """Tell whether a path is a directory."""
        return self._tree.is_directory(path)

    def delete(self, path: bytes) -> None:
        """Record a deletion."""
        self._tree.delete(path)

    def make_opaque(self, path: bytes) -> None:
        """Record an opaque directory."""
        self._tree.make_opaque(path)

    def finish(self) -> None:
        """Complete the tree."""
        self._tree.finish()
        if self._links:
            self._notes.add(f"{self._links} hard links become files of their own")
        if self._stripped:
            self._notes.add(
                f"{self._stripped} files lose their extended attributes: "
                "the repository's server.conf does not say CVMFS_INCLUDE_XATTRS=true"
            )

        if self._moved:
            self._notes.add(f"{self._moved} files get the nearest times that can be held: {self._first_moved}")

    def _refuse(self, path: bytes) -> None:
        """Refuse a path that would mean something else to CVMFS, or be too long."""
        self._check_length(path)
        _check_names(path)

    def _check_length(self, path: bytes) -> None:
        if len(path) > self._longest:
            raise ArchiveLimitError(
                f"{show(path)} is longer than {self._longest} bytes, and with the place of layers before it longer "
                f"than the {_LONGEST_PATH} that a path can have"
            )

    def _look_at(self, path: bytes, entry: Entry) -> None:
        if not self._scratch.earliest <= entry.mtime <= self._scratch.latest:
            held = min(max(entry.mtime, self._scratch.earliest), self._scratch.latest)
            self._first_moved = (
                self._first_moved or f"{show(path)} has one of {_year(entry.mtime)}, and gets one of {_year(held)}"
            )
            self._moved += 1
        if not entry.xattrs:
            return
        if not self._scratch.holds(entry.xattrs):
            raise ArchiveLimitError(
                f"{show(path)} has {len(entry.xattrs)} extended attributes, more than the file system of the "
                "repository's scratch area can hold of one file"
            )
        if not self._keeps_xattrs:
            self._stripped += 1
            return
        for name, value in entry.xattrs.items():
            if max(len(name), len(value)) > _LONGEST_XATTR:
                self._notes.add(
                    f"{show(path)}: the attribute {show(name)} has a value of {len(value)} bytes, CVMFS holds "
                    f"{_LONGEST_XATTR}; lost"
                )


def _check_names(path: bytes) -> None:
    """Refuse a path that has a name in it which means something else to CVMFS; its parents may be only implied."""
    if _OWN not in path:
        return
    for name in path.split(b"/"):
        if name in (_CATALOG, _BUNDLES) or name.startswith(_GRAFT_PREFIX):
            raise UnsafeArchiveError(f"{show(path)}: the name {show(name)} is reserved by CVMFS")


def _name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]


def _year(nanoseconds: int) -> str:
    try:
        return f"the year {time.gmtime(nanoseconds // 1_000_000_000).tm_year}"
    except (OverflowError, OSError, ValueError):
        return "a year beyond all calendars"
