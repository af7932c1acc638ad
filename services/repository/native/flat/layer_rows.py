"""The rows of the layers of an image, read from their catalogs: a statement each, and nothing of their content.

A row is known by the hash of its path in the repository, which holds the layer's digest. So the rows of all layers are
in one table, by the directories that they are in.
"""

import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from itertools import groupby
from operator import itemgetter
from typing import Final

from services.common.errors import InvalidValueError
from services.common.sidecar import SIDECAR_LIMIT, LayerSidecar
from services.repository.errors import ImageRefusedError
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.flat.kept_rows import KeptRows
from services.repository.native.records import HASH_SHIFT, ContentHash, EntryFlag, HashAlgorithm, path_hash
from services.repository.native.writer.catalog import Catalog
from services.repository.native.writer.catalog_rows import CatalogRows
from services.repository.native.writer.rows import Row

__all__ = ["Chunk", "LayerRows", "PathHash"]

PathHash = tuple[int, int]
"""What catalogs know a path by."""
Chunk = tuple[int, int, bytes]
"""Offset and size of a part of a large file, in bytes, and the digest of its object."""

_COLUMNS: Final = (
    "md5path_1, md5path_2, parent_1, parent_2, hardlinks, hash, size, mode, mtime, mtimens, flags, name, symlink, uid, "
    "gid, xattr"
)
"""Those of a `Row`."""
_directory_of: Final = itemgetter(2, 3)
_TIME: Final = "last_modified"
_NO_TIME: Final = "0"
"""What this suite's catalogs of layers say of when they were made (`writer/catalog_rows`); their trees are complete."""
_SIDECAR: Final = b"layer.json"
_NOT_SHOWN: Final = (EntryFlag.NESTED_ROOT | EntryFlag.HIDDEN).value
"""The catalog above has a nested root's row as well; what is hidden is the marks of catalogs."""
_ROWS: Final = f"SELECT {_COLUMNS} FROM catalog"  # noqa: S608 - constants
_CHUNKS: Final = "SELECT md5path_1, md5path_2, offset, size, hash FROM chunks ORDER BY md5path_1, md5path_2, offset"


class LayerRows:
    """Rows of layers, some 600 bytes each.

    Parameters
    ----------
    read
        Returns the uncompressed database of a catalog.
    read_file
        Returns the content of a small file.
    kept
        Has rows that were read before, and gets those that are read.
    """

    def __init__(
        self, read: Callable[[ContentHash], bytes], read_file: Callable[[ContentHash], bytes], kept: KeptRows
    ) -> None:
        self._read = read
        self._read_file = read_file
        self._kept = kept
        self.children: dict[PathHash, list[Row]] = {}
        """What is in a directory, in no order."""
        self.chunks: dict[PathHash, list[Chunk]] = {}
        """The parts of a large file, in their order."""

    def add(self, catalog: ContentHash, home: bytes, tree: bytes) -> Row:
        """Read the catalogs of a layer, and return the row of its root.

        Parameters
        ----------
        catalog
            The one that begins at the layer's home.
        home, tree
            Paths of the layer's home, and of its root.

        Raises
        ------
        ImageRefusedError
            The layer's deletions are listed beside its tree, which does not have them.
        BrokenRepositoryError
            They are not what they should be, or the layer has no root.
        StorageError
            The storage failed.
        """
        is_ours = True
        waiting = [catalog]
        while waiting:
            rows = self._rows_of(waiting.pop(), home)
            is_ours = is_ours and dict(rows.properties).get(_TIME, _NO_TIME) == _NO_TIME
            waiting += [ContentHash.parse(name) for _, name, _ in rows.nested]
            self._take(rows)
        root = next((row for row in self.children.get(path_hash(home), ()) if row[:2] == path_hash(tree)), None)
        if root is None or not stat.S_ISDIR(root[7]):
            raise BrokenRepositoryError(f"{tree.decode()} is no directory in the repository")
        if not is_ours:
            self._check_deletions(home)
        return root

    def _check_deletions(self, home: bytes) -> None:
        """Make sure that the tree of a layer that `cvmfs_server` has published is all that there is of it."""
        row = next((row for row in self.children[path_hash(home)] if row[11] == _SIDECAR), None)
        algorithm = next(
            (known for known in HashAlgorithm if row and known.number == row[10] >> HASH_SHIFT & 0b111), None
        )
        if row is None or row[5] is None or algorithm is None or row[6] > SIDECAR_LIMIT:
            raise BrokenRepositoryError(f"{home.decode()} has no sidecar that can be read: publish the layer again")
        try:
            sidecar = LayerSidecar.parse(self._read_file(ContentHash(row[5], algorithm)), where=home.decode())
        except InvalidValueError as error:
            raise BrokenRepositoryError(str(error)) from error
        if sidecar.needs_mask:
            raise ImageRefusedError(
                f"{home.decode()} was published by cvmfs_server, which keeps none of its deletions: no flat image can "
                "be made of it; take the layer out (thin-repository remove), and publish the image again"
            )

    def _take(self, rows: CatalogRows) -> None:
        """Add what a catalog has."""
        children = self.children
        shown = [row for row in rows.entries if not row[10] & _NOT_SHOWN]
        for above, group in groupby(shown, key=_directory_of):  # most of a directory is in one place
            known = children.get(above)
            if known is None:
                children[above] = list(group)
            else:
                known += group
        for first, second, offset, size, digest in rows.chunks:
            self.chunks.setdefault((first, second), []).append((offset, size, digest))

    def _rows_of(self, catalog: ContentHash, home: bytes) -> CatalogRows:
        """Return the rows of a catalog of a layer, kept or read."""
        packed = self._kept.get(catalog)
        if packed is not None:
            return CatalogRows.unpack(packed)
        where = f"a catalog of {home.decode()}, {catalog}"
        with closing(Catalog(self._read(catalog), where=where)) as opened:
            nested = [(path, str(name), 0) for path, name in opened.all_nested()]
            properties = [(_TIME, opened.property(_TIME) or "")]
            database = opened.database
            database.text_factory = bytes  # names are of any encoding
            try:
                entries, chunks = database.execute(_ROWS).fetchall(), database.execute(_CHUNKS).fetchall()
            except sqlite3.Error as error:
                raise BrokenRepositoryError(f"{where}, is damaged: {error}") from error
        rows = CatalogRows(b"", entries, chunks, nested, (), properties)
        self._kept.put(catalog, rows.pack())
        return rows
