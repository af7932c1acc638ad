"""The catalogs of a flat image.

They are split as those of layers are (`writer/cuts`), for the same reason: a client fetches a catalog whole at the
first look-up in it, and whoever enters an image looks into the directories of the system and few others. In one
catalog, an image of 100,000 entries would cost 8 MB before the first program runs.

The same tree gives the same catalogs, byte by byte, wherever and whenever they are made: rows are in the order of their
names, and nothing in them is of the present.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from services.common.archive.nametree import Directory
from services.common.layout import CATALOG_MARKER
from services.repository.flat.modes import Modes
from services.repository.native.flat.contents import Below, FlatContents, FlatDirectory, settled
from services.repository.native.flat.layer_rows import Chunk, PathHash
from services.repository.native.flat.merge import MergedTree
from services.repository.native.records import ContentHash, EntryFlag
from services.repository.native.writer.catalog import NestedCatalog
from services.repository.native.writer.catalog_files import CatalogFiles
from services.repository.native.writer.cuts import choose_cuts
from services.repository.native.writer.pool import CountedCatalog
from services.repository.native.writer.rows import MARKER_MODE, DirectoryRow, Row, file_row

__all__ = ["FlatCatalogs"]

_DIRECTORY: Final = EntryFlag.DIRECTORY.value
_MOUNTPOINT: Final = (EntryFlag.DIRECTORY | EntryFlag.NESTED_MOUNTPOINT).value
_NESTED_ROOT: Final = (EntryFlag.DIRECTORY | EntryFlag.NESTED_ROOT).value
_CHUNKED: Final = EntryFlag.CHUNKED.value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """A catalog that is being made."""

    path: bytes
    root: DirectoryRow
    stored: Future[CountedCatalog]


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
        self._files = files
        self._marker = marker
        self._properties = properties
        self._written: dict[bytes, _Written] = {}
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
        top = self._write(self._path, self._tree.root, entries=of_root, properties=[*self._properties.items()])
        stored = top.stored.result()
        return NestedCatalog(path=top.path, name=stored.name, size=stored.size, root=top.root, counters=stored.counters)

    def _write(
        self, path: bytes, directory: Directory, *, entries: int, properties: Sequence[tuple[str, str]] = ()
    ) -> _Written:
        nested: list[_Written] = []
        directories = list(self._directories(path, directory, nested))
        chunks = (
            {row[:2]: self._chunks[row[:2]] for one in directories for row in one.leaves if row[10] & _CHUNKED}
            if self._chunks
            else {}
        )
        contents = FlatContents(path, self._modes.others_read, directories, self._mark(path), chunks, properties)
        stored = self._files.store_flat(contents, _references(nested), entries=entries)
        return _Written(path=path, root=self._settled(directory), stored=stored)

    def _directories(self, path: bytes, top: Directory, nested: list[_Written]) -> Iterator[FlatDirectory]:
        """Give the directories of one catalog, its root first, and note the catalogs directly below."""
        rows = self._tree.rows
        waiting = [(path, top)]
        while waiting:
            path, directory = waiting.pop()
            leaves = []
            inner = []
            for name, node in directory.items():
                if isinstance(node, Directory):
                    inner.append((path + b"/" + name, node))
                else:
                    leaves.append(rows[node])
            below = None if directory is top else self._written.get(path)
            if below is not None:
                nested.append(below)
                yield FlatDirectory(path, _MOUNTPOINT, directory.attributes, len(inner), ())
                continue
            flags = _NESTED_ROOT if directory is top else _DIRECTORY
            yield FlatDirectory(path, flags, directory.attributes, len(inner), leaves)
            inner.sort(reverse=True, key=itemgetter(0))
            waiting += inner

    def _settled(self, directory: Directory) -> DirectoryRow:
        inner = sum(isinstance(node, Directory) for node in directory.values())
        return settled(directory.attributes, inner, self._modes)

    def _mark(self, path: bytes) -> Row:
        """Return the row that marks the root of a catalog for checkers, hidden from listings."""
        place = path + b"/" + CATALOG_MARKER.encode()
        row = file_row(place, mode=MARKER_MODE, name=self._marker, size=0, flags=EntryFlag.HIDDEN)
        return (*row[:10], int(row[10]), *row[11:])  # rows go to other processes as plain numbers


def _references(nested: Sequence[_Written]) -> Iterator[Below]:
    """Give what a catalog says of those directly below it, when they have been stored."""
    for below in nested:
        stored = below.stored.result()
        yield Below(below.path, str(stored.name), stored.size, stored.counters)
