"""From a layer's tree to its catalogs: the one of its home, and those below it."""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from services.common.archive.nametree import Directory
from services.common.digest import Digest
from services.common.layout import CATALOG_MARKER, layer_home, layer_tree
from services.repository.native.records import (
    DIGEST_SIZE,
    HASH_SHIFT,
    EntryFlag,
    path_hash,
)
from services.repository.native.writer.catalog import NestedCatalog
from services.repository.native.writer.catalog_files import CatalogFiles
from services.repository.native.writer.catalog_rows import CatalogRows
from services.repository.native.writer.cuts import choose_cuts
from services.repository.native.writer.layer_tree import CatalogTree, SettledDirectory
from services.repository.native.writer.rows import DirectoryRow, Row
from services.repository.native.writer.written_catalogs import CatalogContents, WrittenCatalog

__all__ = ["HOME", "LayerCatalogs"]

HOME: Final = DirectoryRow(mode=stat.S_IFDIR | 0o755, uid=0, gid=0, mtime=0, mtimens=0, links=3)
"""Attributes of every layer's home: with nothing of the present time in it, the same layer is the same catalogs."""

_DIRECTORY: Final = EntryFlag.DIRECTORY.value
_MOUNTPOINT: Final = (EntryFlag.DIRECTORY | EntryFlag.NESTED_MOUNTPOINT).value
_NESTED_ROOT: Final = (EntryFlag.DIRECTORY | EntryFlag.NESTED_ROOT).value
_FILE: Final = EntryFlag.FILE.value
_CHUNKED: Final = EntryFlag.CHUNKED.value
_SYMLINK: Final = (EntryFlag.FILE | EntryFlag.SYMLINK).value
_SPECIAL: Final = (EntryFlag.FILE | EntryFlag.SPECIAL).value
_HIDDEN: Final = EntryFlag.HIDDEN.value


class LayerCatalogs:
    """Writes the catalogs of one layer.

    Parameters
    ----------
    digest
        The layer.
    tree
        Its tree, whose content has become objects.
    files
        Stores catalogs.
    marker
        Number that the tree gave to the file that marks catalogs.
    beside
        Numbers that it gave to the files beside the layer's tree, by their paths.
    """

    def __init__(
        self, *, digest: Digest, tree: CatalogTree, files: CatalogFiles, marker: int, beside: Mapping[str, int]
    ) -> None:
        self._home = b"/" + layer_home(digest).encode()
        self._top = b"/" + layer_tree(digest).encode()
        self._tree = tree
        self._files = files
        self._marker = marker
        self._beside = beside
        self._hash_flags = files.algorithm.number << HASH_SHIFT
        self._written: dict[bytes, WrittenCatalog] = {}
        """Catalogs of directories of the layer, by their absolute paths."""

    def store(self) -> NestedCatalog:
        """Write all catalogs, those below others first, and return the one of the layer's home.

        Raises
        ------
        StorageError
            One cannot be stored.
        OSError
            One cannot be written.
        """
        cuts = choose_cuts(self._tree.names.root)
        of_home = cuts.pop(b"")
        # Deeper ones first: a catalog names those below it.
        for cut in sorted(cuts, key=lambda path: (-path.count(b"/"), path)):
            directory = self._tree.names.directory(cut)
            path = self._top + b"/" + cut
            settled: SettledDirectory = directory.attributes
            contents = CatalogContents()
            rows = self._split_off(directory, path, contents)
            self._written[path] = self._write(path, settled.row, rows, contents, entries=cuts[cut])
        contents = CatalogContents()
        return self._write(self._home, HOME, self._of_home(contents), contents, entries=of_home).nested()

    def _write(
        self, path: bytes, root: DirectoryRow, rows: Iterable[Row], contents: CatalogContents, *, entries: int
    ) -> WrittenCatalog:
        """Write one catalog.

        Parameters
        ----------
        path
            Where it begins.
        root
            What is known of that directory.
        rows
            All entries, which also tell `contents`.
        entries
            How many there are, about.
        """
        made = CatalogRows(path, rows, self._chunk_rows(contents), contents.references(), contents.counters())
        stored = self._files.store(made, entries=entries)
        return WrittenCatalog(path=path, root=root, counters=contents.totals(), stored=stored)

    def _of_home(self, contents: CatalogContents) -> Iterator[Row]:
        """Give the rows of the catalog of the layer's home."""
        home = self._home
        contents.counts["dir"] += 1
        yield HOME.row(home, _NESTED_ROOT)
        yield self._mark(home, contents)
        for place, number in self._beside.items():
            path = b"/" + place.encode()
            yield self._leaf(os.path.basename(path), number, path_hash(path), path_hash(home), 1, contents)
        yield from self._directory(self._tree.names.root, self._top, _DIRECTORY, contents)

    def _split_off(self, directory: Directory, path: bytes, contents: CatalogContents) -> Iterator[Row]:
        """Give the rows of a catalog that begins at a directory of the layer."""
        rows = self._directory(directory, path, _NESTED_ROOT, contents)
        yield next(rows)
        yield self._mark(path, contents)
        yield from rows

    def _mark(self, path: bytes, contents: CatalogContents) -> Row:
        """Return the row that marks the root of a catalog for checkers, hidden from listings."""
        name = CATALOG_MARKER.encode()
        return self._leaf(name, self._marker, path_hash(path + b"/" + name), path_hash(path), 1, contents, _HIDDEN)

    def _directory(self, directory: Directory, path: bytes, flags: int, contents: CatalogContents) -> Iterator[Row]:
        """Give the rows of a directory, and of what is below it in the same catalog."""
        settled: SettledDirectory = directory.attributes
        yield self._directory_row(settled, path, flags, contents)
        here = path_hash(path)
        links = settled.links
        inner = []
        for name, node in directory.items():
            place = path + b"/" + name
            if isinstance(node, Directory):
                inner.append((place, node))
            else:
                yield self._leaf(name, node, path_hash(place), here, links.get(node, 1), contents)
        for place, node in inner:
            below = self._written.get(place)
            if below is None:
                yield from self._directory(node, place, _DIRECTORY, contents)
            else:
                contents.nested.append(below)
                contents.counts["nested"] += 1
                yield self._directory_row(node.attributes, place, _MOUNTPOINT, contents)

    @staticmethod
    def _directory_row(settled: SettledDirectory, path: bytes, flags: int, contents: CatalogContents) -> Row:
        contents.counts["dir"] += 1
        contents.counts["xattr"] += settled.row.xattr is not None
        return settled.row.row(path, flags)

    def _leaf(
        self,
        name: bytes,
        number: int,
        path: tuple[int, int],
        above: tuple[int, int],
        links: int,
        contents: CatalogContents,
        flags: int = 0,
    ) -> Row:
        tree, counts = self._tree, contents.counts
        mode = tree.modes[number]
        xattr = tree.xattrs.get(number)
        target = b""
        digest = None
        size = tree.names.size_of(number)
        if stat.S_ISREG(mode):
            flags |= _FILE | self._hash_flags
            counts["regular"] += 1
            counts["file_size"] += size
            chunks = tree.chunks.get(number)
            if chunks is None:
                digest = bytes(tree.digests[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE])
            else:
                flags |= _CHUNKED
                counts["chunked"] += 1
                counts["chunked_size"] += size
                counts["chunks"] += len(chunks)
                contents.chunked.append((path, number))
        elif stat.S_ISLNK(mode):
            flags |= _SYMLINK
            target = tree.targets[number]
            counts["symlink"] += 1
        else:
            flags |= _SPECIAL
            size = tree.devices[number]
            counts["special"] += 1
        counts["xattr"] += xattr is not None
        return (
            *path,
            *above,
            links,
            digest,
            size,
            mode,
            tree.seconds[number],
            tree.nanoseconds[number],
            flags,
            name,
            target,
            tree.uids[number],
            tree.gids[number],
            xattr,
        )

    def _chunk_rows(self, contents: CatalogContents) -> Iterator[tuple[int, int, int, int, bytes]]:
        for path, number in contents.chunked:
            for offset, size, digest in self._tree.chunks[number]:
                yield (*path, offset, size, digest)
