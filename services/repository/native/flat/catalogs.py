"""The catalogs of a flat image.

They are split as those of layers are (`writer/cuts`), for the same reason: a client fetches a catalog whole at the
first look-up in it, and whoever enters an image looks into the directories of the system and few others. In one
catalog, an image of 100,000 entries would cost 8 MB before the first program runs.

The same tree gives the same catalogs, byte by byte, wherever and whenever they are made: rows are in the order of their
names, and nothing in them is of the present.
"""

import hashlib
import stat
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from services.common.archive.nametree import Directory
from services.common.layout import CATALOG_MARKER
from services.repository.flat.modes import Modes
from services.repository.native.flat.layer_rows import Chunk, PathHash
from services.repository.native.flat.merge import MergedTree
from services.repository.native.flat.overlay_xattrs import without_overlay
from services.repository.native.records import ContentHash, EntryFlag, path_hash
from services.repository.native.writer.catalog import NestedCatalog
from services.repository.native.writer.catalog_files import CatalogFiles
from services.repository.native.writer.catalog_rows import CatalogRows
from services.repository.native.writer.cuts import choose_cuts
from services.repository.native.writer.rows import MARKER_MODE, DirectoryRow, Row, file_row
from services.repository.native.writer.written_catalogs import CatalogContents, WrittenCatalog

__all__ = ["FlatCatalogs"]

_DIRECTORY: Final = EntryFlag.DIRECTORY.value
_MOUNTPOINT: Final = (EntryFlag.DIRECTORY | EntryFlag.NESTED_MOUNTPOINT).value
_NESTED_ROOT: Final = (EntryFlag.DIRECTORY | EntryFlag.NESTED_ROOT).value
_CHUNKED: Final = EntryFlag.CHUNKED.value
_EXTERNAL: Final = EntryFlag.EXTERNAL.value
_RARE: Final = _CHUNKED | _EXTERNAL
_GROUP_SHIFT: Final = 32
_FIRST_GROUP: Final = 1 << _GROUP_SHIFT
_TYPE: Final = 0o170000
_PATH_HASH: Final = struct.Struct("<qq")

_Group = tuple[int, int, int]
"""A directory of a layer, and the number of a link group in it."""


class _Mended(dict[int, int]):
    """The modes of files by what they were: there are few of them."""

    def __init__(self, modes: Modes) -> None:
        super().__init__()
        self._modes = modes

    def __missing__(self, mode: int) -> int:
        mended = self[mode] = self._modes.of_file(mode)
        return mended


class FlatCatalogs:
    """Writes the catalogs of one flat image.

    Parameters
    ----------
    path
        Where it is to be in the repository.
    tree
        The merged layers.
    chunks
        The parts of large files, by the path hashes that their rows have.
    modes
        Which permissions are mended, and how.
    files
        Stores catalogs.
    marker
        The object of an empty file.
    properties
        What the image's first catalog says of itself.
    """

    def __init__(
        self,
        *,
        path: bytes,
        tree: MergedTree,
        chunks: Mapping[PathHash, list[Chunk]],
        modes: Modes,
        files: CatalogFiles,
        marker: ContentHash,
        properties: Mapping[str, str],
    ) -> None:
        self._path = path
        self._tree = tree
        self._chunks = chunks
        self._modes = modes
        self._mended = _Mended(modes)
        self._files = files
        self._marker = marker
        self._properties = properties
        self._groups = 0
        self._written: dict[bytes, WrittenCatalog] = {}
        """Catalogs below the first one, by their paths in the repository."""

    def store(self) -> NestedCatalog:
        """Write all catalogs, those below others first, and return the one of the image's root.

        Raises
        ------
        BrokenRepositoryError
            A row of a layer is not as the format has it.
        StorageError
            A catalog cannot be stored.
        OSError
            One cannot be written.
        """
        cuts = choose_cuts(self._tree.root)
        of_root = cuts.pop(b"")
        # Deeper ones first: a catalog names those below it.
        for cut in sorted(cuts, key=lambda path: (-path.count(b"/"), path)):
            directory = self._tree.root
            for name in cut.split(b"/"):
                inner = directory[name]
                assert isinstance(inner, Directory)  # noqa: S101 - the cuts of this tree
                directory = inner
            path = self._path + b"/" + cut
            self._written[path] = self._write(path, directory, entries=cuts[cut])
        return self._write(self._path, self._tree.root, entries=of_root, properties=self._properties.items()).nested()

    def _write(
        self, path: bytes, directory: Directory, *, entries: int, properties: Iterable[tuple[str, str]] = ()
    ) -> WrittenCatalog:
        contents = CatalogContents()
        rows = self._rows(path, directory, contents)
        made = CatalogRows(
            path, rows, self._chunk_rows(contents), contents.references(), contents.counters(), properties
        )
        stored = self._files.store(made, entries=entries)
        root = self._directory_row(directory)
        return WrittenCatalog(path=path, root=root, counters=contents.totals(), stored=stored)

    def _rows(self, path: bytes, top: Directory, contents: CatalogContents) -> Iterator[Row]:
        """Give the rows of one catalog, its root's first, and count them."""
        counts = contents.counts
        waiting = [(path, top)]
        while waiting:
            path, directory = waiting.pop()
            settled = self._directory_row(directory)
            counts["dir"] += 1
            counts["xattr"] += settled.xattr is not None
            below = None if directory is top else self._written.get(path)
            if below is not None:
                contents.nested.append(below)
                counts["nested"] += 1
                yield settled.row(path, _MOUNTPOINT)
                continue
            yield settled.row(path, _NESTED_ROOT if directory is top else _DIRECTORY)
            if directory is top:
                counts["regular"] += 1
                yield self._mark(path)
            yield from self._leaves(path, directory, contents)
            inner = [(path + b"/" + name, node) for name, node in directory.items() if isinstance(node, Directory)]
            waiting += sorted(inner, key=lambda found: found[0], reverse=True)

    def _mark(self, path: bytes) -> Row:
        """Return the row that marks the root of a catalog for checkers, hidden from listings."""
        place = path + b"/" + CATALOG_MARKER.encode()
        row = file_row(place, mode=MARKER_MODE, name=self._marker, size=0, flags=EntryFlag.HIDDEN)
        return (*row[:10], int(row[10]), *row[11:])  # rows go to other processes as plain numbers

    def _leaves(self, path: bytes, directory: Directory, contents: CatalogContents) -> Iterator[Row]:
        """Give the rows of what is in a directory and is none; there may be a hundred thousand."""
        counts, rows, mended = contents.counts, self._tree.rows, self._mended
        md5, unpack, prefix = hashlib.md5, _PATH_HASH.unpack, path + b"/"
        above_1, above_2 = path_hash(path)
        groups: Mapping[_Group, int] | None = None
        regular = file_size = 0
        for name in sorted(directory):
            number = directory[name]
            if isinstance(number, Directory):
                continue
            row = rows[number]
            _, _, from_1, from_2, links, digest, size, mode, mtime, fraction, flags, *more, xattr = row
            here_1, here_2 = unpack(md5(prefix + name, usedforsecurity=False).digest())
            if links >= _FIRST_GROUP:
                if groups is None:
                    groups = self._link_groups(directory)
                links = groups[from_1, from_2, links >> _GROUP_SHIFT]
            kind = mode & _TYPE
            if kind == stat.S_IFREG:
                mode = mended[mode]
                regular += 1
                file_size += size
                if flags & _RARE:
                    self._count_rare(row, contents)
                    if flags & _CHUNKED:
                        contents.chunked.append(((here_1, here_2), number))
            else:
                counts["symlink" if kind == stat.S_IFLNK else "special"] += 1
            if xattr is not None:
                xattr = without_overlay(xattr)
                counts["xattr"] += xattr is not None
            yield (here_1, here_2, above_1, above_2, links, digest, size, mode, mtime, fraction, flags, *more, xattr)
        counts["regular"] += regular
        counts["file_size"] += file_size

    def _count_rare(self, row: Row, contents: CatalogContents) -> None:
        counts, size, flags = contents.counts, row[6], row[10]
        if flags & _CHUNKED:
            counts["chunked"] += 1
            counts["chunked_size"] += size
            counts["chunks"] += len(self._chunks[row[:2]])
        if flags & _EXTERNAL:
            counts["external"] += 1
            counts["external_file_size"] += size

    def _link_groups(self, directory: Directory) -> Mapping[_Group, int]:
        """Number the groups of hard links in a directory, and count what is left of each, as catalogs have both."""
        names: Counter[_Group] = Counter()
        for name in sorted(directory):
            number = directory[name]
            if not isinstance(number, Directory):
                row = self._tree.rows[number]
                if row[4] >= _FIRST_GROUP:
                    names[row[2], row[3], row[4] >> _GROUP_SHIFT] += 1
        groups: dict[_Group, int] = {}
        for group, count in names.items():
            groups[group] = 1
            if count > 1:
                self._groups += 1
                groups[group] = self._groups << _GROUP_SHIFT | count
        return groups

    def _directory_row(self, directory: Directory) -> DirectoryRow:
        row: Row = directory.attributes
        inner = sum(isinstance(node, Directory) for node in directory.values())
        xattr = None if row[15] is None else without_overlay(row[15])
        mode = self._modes.of_directory(row[7])
        return DirectoryRow(
            mode=mode, uid=row[13], gid=row[14], mtime=row[8], mtimens=row[9], links=2 + inner, xattr=xattr
        )

    def _chunk_rows(self, contents: CatalogContents) -> Iterator[tuple[int, int, int, int, bytes]]:
        for here, number in contents.chunked:
            for chunk in self._chunks[self._tree.rows[number][:2]]:
                yield (*here, *chunk)
