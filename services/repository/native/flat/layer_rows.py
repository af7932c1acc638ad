"""The rows of the layers of an image, read from their catalogs: a statement each, and nothing of their content.

A row is known by the hash of its path in the repository, which holds the layer's digest. So the rows of all layers are
in one table, by the directories that they are in.
"""

import sqlite3
import stat
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Final

from services.common.errors import InvalidValueError
from services.common.sidecar import SIDECAR_LIMIT, LayerSidecar
from services.repository.errors import ImageRefusedError
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.records import HASH_SHIFT, ContentHash, EntryFlag, HashAlgorithm, path_hash
from services.repository.native.writer.catalog import Catalog
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
_NO_TIME: Final = "0"
"""What this suite's catalogs of layers say of when they were made (`writer/catalog_rows`); their trees are complete."""
_SIDECAR: Final = b"layer.json"
_SHOWN: Final = f"flags & {EntryFlag.NESTED_ROOT | EntryFlag.HIDDEN:d} = 0"
"""The catalog above has a nested root's row as well; what is hidden is the marks of catalogs."""


class LayerRows:
    """Rows of layers, some 600 bytes each.

    Parameters
    ----------
    read
        Returns the uncompressed database of a catalog.
    read_file
        Returns the content of a small file.
    """

    def __init__(self, read: Callable[[ContentHash], bytes], read_file: Callable[[ContentHash], bytes]) -> None:
        self._read = read
        self._read_file = read_file
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
        waiting, is_ours = [catalog], True
        while waiting:
            name = waiting.pop()
            with closing(Catalog(self._read(name), where=f"a catalog of {home.decode()}, {name}")) as opened:
                try:
                    is_ours &= opened.property("last_modified") == _NO_TIME
                    waiting += self._take(opened.database)
                except sqlite3.Error as error:
                    raise BrokenRepositoryError(f"a catalog of {home.decode()}, {name}, is damaged: {error}") from error
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

    def _take(self, database: sqlite3.Connection) -> Sequence[ContentHash]:
        """Take the rows of one catalog, and return the names of those directly below."""
        database.text_factory = bytes  # names are of any encoding
        children = self.children
        for row in database.execute(f"SELECT {_COLUMNS} FROM catalog WHERE {_SHOWN}"):  # noqa: S608 - constants
            above = row[2:4]
            known = children.get(above)
            if known is None:
                children[above] = [row]
            else:
                known.append(row)
        parts = "SELECT md5path_1, md5path_2, offset, size, hash FROM chunks ORDER BY md5path_1, md5path_2, offset"
        for first, second, *part in database.execute(parts):
            self.chunks.setdefault((first, second), []).append((part[0], part[1], part[2]))
        nested = database.execute("SELECT sha1 FROM nested_catalogs")
        return [ContentHash.parse(name.decode()) for (name,) in nested]
