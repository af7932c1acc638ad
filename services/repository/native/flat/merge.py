"""One tree of the rows of several layers: what an overlay of these layers shows.

Names are looked for in the topmost layer first. A directory is merged with those of its name directly below, until
something else, a deletion or an opaque directory ends that; its attributes are those of the topmost one. Unlike the
kernel, and as the image specification has it, a layer whose root is opaque hides all layers below it.

Names that CVMFS itself gives a meaning to are left out.
"""

import stat
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Final

from services.common.archive.nametree import Directory
from services.repository.flat.differences import Difference, Differences, DirectoryAttributes
from services.repository.flat.entries import DROPPED_NAMES
from services.repository.native.flat.layer_rows import LayerRows, PathHash
from services.repository.native.flat.overlay_xattrs import is_opaque, without_overlay
from services.repository.native.writer.rows import DirectoryRow, Row

__all__ = ["MergedTree", "merge"]

_TYPE: Final = 0o170000
_TYPE_SHIFT: Final = 12
_REGULAR: Final = frozenset((stat.S_IFREG >> _TYPE_SHIFT,))
_NO_LAYERS: Final = DirectoryRow(mode=stat.S_IFDIR | 0o755, uid=0, gid=0, mtime=0, mtimens=0, links=2).row(b"", 0)
"""The root of an image that has none."""


class MergedTree:
    """A root file system as rows; of what is not a directory, the tree of names has the number of its row."""

    def __init__(self) -> None:
        self.root = Directory()
        """The attributes of a directory are its row."""
        self.rows: list[Row] = []
        """Of what is no directory, with the path hashes, the link group and the attributes of the layer."""
        self.differences = Differences()
        """What people must know of it."""


class _Merging:
    """A directory of the tree that is still to be filled."""

    __slots__ = ("compared", "directory", "path", "sources", "top")

    def __init__(self, path: bytes, row: Row) -> None:
        self.directory = Directory()
        self.directory.attributes = row
        self.top = row
        self.compared = False
        """Whether it is known what the layers below the topmost one say of it."""
        self.path = path
        """Relative to the root, which is empty."""
        self.sources: list[PathHash] = [row[:2]]
        """The directories of layers that it consists of, the topmost first."""


def merge(layers: LayerRows, roots: Sequence[Row]) -> MergedTree:
    """Merge layers.

    Parameters
    ----------
    layers
        The rows of all of them.
    roots
        The rows of their roots, those of the base layer first.
    """
    tree = MergedTree()
    top, *below = reversed(roots) if roots else (_NO_LAYERS,)
    root = _Merging(b"", top)
    opaque = is_opaque(top)
    for row in below:
        if opaque:
            break
        root.sources.append(row[:2])
        opaque = is_opaque(row)
    tree.root = root.directory
    waiting = [root]
    while waiting:
        merging = waiting.pop()
        waiting += _fill(tree, layers, merging)
    return tree


def _fill(tree: MergedTree, layers: LayerRows, merging: _Merging) -> Sequence[_Merging]:
    """Fill a directory; return the directories in it."""
    directory, rows = merging.directory, tree.rows
    if (files := _only_files(layers, merging)) is not None:
        directory.update(zip(files, count(len(rows)), strict=False))
        rows += files.values()
        return ()
    inner: list[_Merging] = []
    seen: dict[bytes, _Merging | None] = {}
    """What shows whatever lower layers hold of a name: a directory, or nothing does."""
    for source in merging.sources:
        for row in layers.children.get(source, ()):
            name = row[11]
            if name in seen:
                found = seen[name]
                if found is not None and not _goes_on(found, row, tree.differences):
                    seen[name] = None
                continue
            seen[name] = None
            kind = row[7] & _TYPE
            if name in DROPPED_NAMES:
                tree.differences.add(Difference.DROPPED_NAME, _joined(merging.path, name))
            elif kind == stat.S_IFDIR:
                found = _Merging(_joined(merging.path, name), row)
                directory[name] = found.directory
                inner.append(found)
                seen[name] = None if is_opaque(row) else found
            elif kind != stat.S_IFCHR or row[6]:  # a device 0:0 deletes the name
                directory[name] = len(rows)
                rows.append(row)
                if kind == stat.S_IFLNK:
                    tree.differences.link(_joined(merging.path, name), row[12])
    return inner


def _only_files(layers: LayerRows, merging: _Merging) -> Mapping[bytes, Row] | None:
    """Return what is in a directory where all layers have nothing but regular files there, as in most; else None."""
    files: dict[bytes, Row] = {}
    for source in reversed(merging.sources):
        there = layers.children.get(source, ())
        if not {row[7] >> _TYPE_SHIFT for row in there} <= _REGULAR:
            return None
        files.update({row[11]: row for row in there})
    return files if DROPPED_NAMES.isdisjoint(files) else None


def _goes_on(found: _Merging, row: Row, differences: Differences) -> bool:
    """Merge a directory with what a lower layer has in its place; return whether it shows those below as well."""
    kind = row[7] & _TYPE
    if kind == stat.S_IFLNK:
        differences.hides_link(found.path, _attributes(found.top))
    if kind != stat.S_IFDIR:
        return False
    if not found.compared:
        _compare(found, row, differences)
    found.sources.append(row[:2])
    return not is_opaque(row)


def _compare(found: _Merging, row: Row, differences: Differences) -> None:
    """Compare a directory with what the topmost layer that has an entry for it says of it."""
    shown = _attributes(found.top)
    below = _attributes(row)
    found.compared = not (shown.may_be_implied and below.may_be_implied)
    if found.compared:
        differences.hides_directory(found.path, shown, below)


def _attributes(row: Row) -> DirectoryAttributes:
    return DirectoryAttributes(
        permissions=row[7] & ~_TYPE,
        uid=row[13],
        gid=row[14],
        mtime=row[8] or row[9] or 0,
        has_xattrs=row[15] is not None and without_overlay(row[15]) is not None,
    )


def _joined(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name
