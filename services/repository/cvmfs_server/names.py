"""Names that mean something to CVMFS wherever they lie, and what else of a layer CVMFS does not keep.

- `.cvmfsgraft-NAME` replaces the content of NAME by whatever hash it holds, and one that is malformed makes the whole
  publish fail (CernVM-FS, cvmfs/sync_item.cc). A layer with such a file is refused: its files would not be what the
  layer's digest says.
- `.cvmfscatalog`, as a file, makes its directory a nested catalog; the file itself is kept. As anything else it is
  refused.
- A symbolic link to `(overlay-whiteout)` counts as a deletion (cvmfs/sync_union_overlayfs.cc), and is refused.
- Clients expand `$(NAME)` in the targets of symbolic links, and hard links become files of their own.
- Extended attributes are kept if the repository's settings say so, with names and values of up to 255 bytes.

Names that begin with `.wh.` never get here: to the reader of archives they are deletions, or refused in capitals.
"""

from typing import Final

from services.common.archive.entry import Entry
from services.common.archive.errors import UnsafeArchiveError
from services.common.archive.layer import LayerTree
from services.common.archive.notes import Notes, show
from services.common.archive.reader import TarReader
from services.common.layout import CATALOG_MARKER

__all__ = ["CvmfsNames"]

_GRAFT_PREFIX: Final = b".cvmfsgraft-"
_CATALOG: Final = CATALOG_MARKER.encode()
_VARIANT: Final = b"$("
_WHITEOUT_TARGET: Final = b"(overlay-whiteout)"
_LONGEST_XATTR: Final = 255
"""Bytes of an extended attribute's name or value; one byte more counts as none, what is longer is dropped."""


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
    """

    def __init__(self, tree: LayerTree, notes: Notes, *, keeps_xattrs: bool) -> None:
        self._tree = tree
        self._notes = notes
        self._keeps_xattrs = keeps_xattrs
        self._links = 0
        self._stripped = 0

    @property
    def size(self) -> int:
        """Size of the other tree."""
        return self._tree.size

    def directory(self, path: bytes, entry: Entry) -> None:
        """Make a directory."""
        _refuse_reserved(path)
        self._look_at_xattrs(path, entry)
        self._tree.directory(path, entry)

    def file(self, path: bytes, entry: Entry, data: TarReader) -> None:
        """Make a file."""
        if _name(path) == _CATALOG:
            self._notes.add(f"{show(path)}: makes its directory a nested catalog")
        else:
            _refuse_reserved(path)
        self._look_at_xattrs(path, entry)
        self._tree.file(path, entry, data)

    def symlink(self, path: bytes, entry: Entry) -> None:
        """Make a symbolic link."""
        _refuse_reserved(path)
        if entry.link == _WHITEOUT_TARGET:
            raise UnsafeArchiveError(f"{show(path)}: CVMFS takes a link to {show(entry.link)} for a deletion")
        if _VARIANT in entry.link:
            self._notes.add(f"{show(path)}: clients of CVMFS expand the variable in its target {show(entry.link)}")
        self._tree.symlink(path, entry)

    def node(self, path: bytes, entry: Entry) -> None:
        """Make a device or fifo."""
        _refuse_reserved(path)
        self._tree.node(path, entry)

    def link(self, path: bytes, target: bytes) -> bool:
        """Make a hard link."""
        _refuse_reserved(path)
        made = self._tree.link(path, target)
        self._links += made
        return made

    def vacate(self, path: bytes) -> None:
        """Remove what is there."""
        self._tree.vacate(path)

    def imply(self, path: bytes) -> bytes:
        """Make a directory unless it exists."""
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

    def _look_at_xattrs(self, path: bytes, entry: Entry) -> None:
        if not self._keeps_xattrs:
            self._stripped += bool(entry.xattrs)
            return
        for name, value in entry.xattrs.items():
            if max(len(name), len(value)) > _LONGEST_XATTR:
                self._notes.add(
                    f"{show(path)}: the attribute {show(name)} has a value of {len(value)} bytes, CVMFS holds "
                    f"{_LONGEST_XATTR}; lost"
                )


def _name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]


def _refuse_reserved(path: bytes) -> None:
    # Of a file that is only implied as a parent the name is checked as well.
    for name in path.split(b"/"):
        if name == _CATALOG or name.startswith(_GRAFT_PREFIX):
            raise UnsafeArchiveError(f"{show(path)}: the name {show(name)} is reserved by CVMFS")
