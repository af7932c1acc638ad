"""What a stack of layers shows, found from the base up: each layer is applied to what those below it have made.

It judges what `native/flat` makes, which looks for names from the top down, and so shares nothing with it.
"""

import stat
from collections.abc import Iterable, Iterator
from typing import Final

from services.repository.flat.entries import DROPPED_NAMES, GeneratedEntry, GeneratedKind
from services.repository.native.reader.entries import Row, decode_xattrs
from services.repository.native.reader.revision import Revision
from services.repository.native.records import EntryFlag

__all__ = ["Chunk", "Key", "Node", "TreeRows", "show_layers"]

_SHOWN: Final = f"flags & {EntryFlag.NESTED_ROOT | EntryFlag.HIDDEN:d} = 0"
"""Not what the catalog above says as well, and not the marks of catalogs."""
_OPAQUE: Final = (b"trusted.overlay.opaque", b"user.overlay.opaque")

Key = tuple[int, int]
"""The hash of a path."""
Chunk = tuple[int, int, bytes]
"""Offset and size of a part of a file, in bytes, and the digest of its object."""


class TreeRows:
    """The rows of everything below some directories of a revision."""

    def __init__(self, revision: Revision) -> None:
        self._revision = revision
        self._children: dict[Key, list[Row]] = {}
        self._chunks: dict[Key, list[Chunk]] = {}

    def read(self, path: bytes) -> Row | None:
        """Read everything below a directory; return its row, if there is one.

        Raises
        ------
        ObjectMissingError, StorageError, BrokenRepositoryError
            A catalog cannot be read.
        """
        top: Row | None = None
        for number, catalog in enumerate(self._revision.catalogs_below(path)):
            if not number:
                top = catalog.row(path)
            for row in catalog.rows(_SHOWN):
                self._children.setdefault((row.parent_1, row.parent_2), []).append(row)
            parts = "SELECT md5path_1, md5path_2, offset, size, hash FROM chunks ORDER BY md5path_1, md5path_2, offset"
            for first, second, offset, size, digest in catalog.database.rows(parts):
                self._chunks.setdefault((first, second), []).append((offset, size, digest))
        return top

    def children(self, directory: Row) -> Iterable[Row]:
        """Return what is in a directory."""
        return self._children.get(key_of(directory), ())

    def chunks(self, file: Row) -> list[Chunk]:
        """Return the parts of a large file, in their order."""
        return self._chunks.get(key_of(file), [])


class Node:
    """An entry that is to be there: of a layer, or generated."""

    __slots__ = ("inner", "source")

    def __init__(self, source: Row | GeneratedEntry) -> None:
        self.source = source
        self.inner: dict[bytes, Node] | None = {} if _is_directory(source) else None
        """What a directory holds."""


def show_layers(rows: TreeRows, roots: Iterable[Row], generated: Iterable[GeneratedEntry]) -> Node | None:
    """Return the root of what layers show, with what is generated; None where there are no layers.

    Parameters
    ----------
    rows
        Those of all layers.
    roots
        The rows of the layers' roots, the base layer's first.
    generated
        Parents before what is in them.

    Raises
    ------
    BrokenRepositoryError
        The attributes of a directory cannot be read.
    """
    shown: Node | None = None
    for root in roots:
        below = None if shown is None or _is_opaque(root) else shown.inner
        shown = Node(root)
        shown.inner = {} if below is None else below
        waiting = [(shown.inner, root)]
        while waiting:
            names, directory = waiting.pop()
            waiting += _apply(rows, names, directory)
    if shown is not None:
        for entry in generated:
            _generate(shown, entry)
    return shown


def _apply(rows: TreeRows, names: dict[bytes, Node], directory: Row) -> Iterator[tuple[dict[bytes, Node], Row]]:
    """Apply what a layer has in a directory to what is there; give the directories in it, to be applied."""
    for row in rows.children(directory):
        if row.name in DROPPED_NAMES:
            # Whatever a lower layer has of the name is left out as well.
            continue
        if stat.S_ISCHR(row.mode) and not row.size:
            names.pop(row.name, None)
            continue
        before = names.get(row.name)
        node = names[row.name] = Node(row)
        if node.inner is not None:
            if before is not None and before.inner is not None and not _is_opaque(row):
                node.inner = before.inner
            yield node.inner, row


def _generate(root: Node, entry: GeneratedEntry) -> None:
    *parents, name = entry.path.split(b"/")
    names = root.inner
    for part in parents:
        inner = None if names is None else names.get(part)
        names = None if inner is None else inner.inner
    if names is None:
        return
    there = names.get(name)
    if there is not None and (
        entry.only_if_missing or (entry.kind is GeneratedKind.DIRECTORY and there.inner is not None)
    ):
        return
    names[name] = Node(entry)


def key_of(row: Row) -> Key:
    """Return the hash of a row's path."""
    return row.md5path_1, row.md5path_2


def _is_directory(source: Row | GeneratedEntry) -> bool:
    if isinstance(source, GeneratedEntry):
        return source.kind is GeneratedKind.DIRECTORY
    return stat.S_ISDIR(source.mode)


def _is_opaque(row: Row) -> bool:
    return row.xattr is not None and any(decode_xattrs(row.xattr).get(name) == b"y" for name in _OPAQUE)
