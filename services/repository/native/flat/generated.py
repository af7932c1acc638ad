"""What a flat image has besides the entries of its layers, put into the tree that has been made of them."""

import stat
from collections.abc import Callable, Iterable, Sequence

from services.common.archive.nametree import Directory
from services.repository.flat.entries import GeneratedEntry, GeneratedKind
from services.repository.native.flat.merge import MergedTree
from services.repository.native.records import ContentHash
from services.repository.native.writer.rows import DirectoryRow, Row, file_row, link_row

__all__ = ["add_generated"]


def add_generated(
    tree: MergedTree, entries: Iterable[GeneratedEntry], put: Callable[[bytes], ContentHash]
) -> Sequence[bytes]:
    """Put entries into a tree.

    Parameters
    ----------
    tree
        The tree, which is changed.
    entries
        Parents before what is in them.
    put
        Makes an object of a small file.

    Returns
    -------
    Sequence
        Paths that have been left out, since their parent is no directory of the image.
    """
    left_out = []
    for entry in entries:
        *parents, name = entry.path.split(b"/")
        parent = _directory(tree.root, parents)
        if parent is None:
            left_out.append(entry.path)
        elif name not in parent or not _stays(entry, parent[name]):
            parent[name] = _node(tree, entry, put)
    return left_out


def _directory(root: Directory, parts: Sequence[bytes]) -> Directory | None:
    directory = root
    for part in parts:
        inner = directory.get(part)
        if not isinstance(inner, Directory):
            return None
        directory = inner
    return directory


def _stays(entry: GeneratedEntry, there: int | Directory) -> bool:
    return entry.only_if_missing or (entry.kind is GeneratedKind.DIRECTORY and isinstance(there, Directory))


def _node(tree: MergedTree, entry: GeneratedEntry, put: Callable[[bytes], ContentHash]) -> int | Directory:
    if entry.kind is GeneratedKind.DIRECTORY:
        directory = Directory()
        mode = stat.S_IFDIR | entry.mode
        row = DirectoryRow(mode=mode, uid=0, gid=0, mtime=entry.mtime, mtimens=0, links=2).row(entry.path, 0)
        directory.attributes = row
        return directory
    row = _leaf(entry, put)
    tree.rows.append((*row[:10], int(row[10]), *row[11:]))  # rows go to other processes as plain numbers
    return len(tree.rows) - 1


def _leaf(entry: GeneratedEntry, put: Callable[[bytes], ContentHash]) -> Row:
    if entry.kind is GeneratedKind.SYMLINK:
        return link_row(entry.path, entry.data, mtime=entry.mtime)
    name, size = put(entry.data), len(entry.data)
    return file_row(entry.path, mode=entry.mode, name=name, size=size, mtime=entry.mtime)
