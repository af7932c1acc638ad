"""From a layer's tree to the nested catalog of its home."""

import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from services.common.archive.nametree import Directory
from services.common.digest import Digest
from services.common.layout import CATALOG_MARKER, layer_home, layer_tree, sidecar_path
from services.repository.native.records import (
    COUNTER_NAMES,
    DIGEST_SIZE,
    HASH_SHIFT,
    ContentHash,
    EntryFlag,
    HashAlgorithm,
    path_hash,
)
from services.repository.native.writer.catalog import (
    DirectoryRow,
    Row,
    create_schema,
    insert_rows,
)
from services.repository.native.writer.layer_tree import CatalogTree, SettledDirectory

__all__ = ["HOME", "LayerCatalog"]

HOME: Final = DirectoryRow(mode=stat.S_IFDIR | 0o755, uid=0, gid=0, mtime=0, mtimens=0, links=3)
"""Attributes of every layer's home: with nothing of the present time in it, the same layer is the same catalog."""

_FILE: Final = EntryFlag.FILE.value
_CHUNKED: Final = EntryFlag.CHUNKED.value
_SYMLINK: Final = (EntryFlag.FILE | EntryFlag.SYMLINK).value
_SPECIAL: Final = (EntryFlag.FILE | EntryFlag.SPECIAL).value
_CACHE_KIB: Final = 8192


class LayerCatalog:
    """Writes one layer's catalog.

    Parameters
    ----------
    digest
        The layer.
    tree
        Its tree, whose content has become objects.
    algorithm
        Algorithm of content hashes.
    """

    def __init__(self, *, digest: Digest, tree: CatalogTree, algorithm: HashAlgorithm) -> None:
        self._digest = digest
        self._home = b"/" + layer_home(digest).encode()
        self._tree = tree
        self._algorithm = algorithm
        self._hash_flags = algorithm.number << HASH_SHIFT
        self._counts: Counter[str] = Counter()
        self._chunked: list[tuple[tuple[int, int], int]] = []

    @property
    def counters(self) -> dict[str, int]:
        """What the catalog counts, by `COUNTER_NAMES`."""
        return {name: self._counts[name] for name in COUNTER_NAMES}

    def write(self, path: Path, *, marker: int, sidecar: int) -> None:
        """Write the database, uncompressed, to a file that does not exist.

        Parameters
        ----------
        path
            The file; nothing of it needs to survive a kill.
        marker, sidecar
            Numbers that the tree gave to these files.
        """
        home = self._home
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            properties = {
                "root_prefix": home.decode(),
                "revision": "1",
                "last_modified": "0",
                "previous_revision": str(ContentHash.null(self._algorithm)),
            }
            create_schema(connection, properties)
            connection.execute("BEGIN")
            rows = [
                HOME.row(home, EntryFlag.DIRECTORY | EntryFlag.NESTED_ROOT),
                self._beside(CATALOG_MARKER, marker, EntryFlag.HIDDEN),
                self._beside(sidecar_path(self._digest), sidecar, EntryFlag(0)),
            ]
            self._counts["dir"] += 1
            insert_rows(connection, rows)
            top = b"/" + layer_tree(self._digest).encode()
            insert_rows(connection, self._directory(self._tree.names.root, top))
            connection.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?, ?)", self._chunk_rows())
            connection.executemany(
                "UPDATE statistics SET value = ? WHERE counter = ?",
                [(value, f"self_{name}") for name, value in self.counters.items()],
            )
            connection.execute("COMMIT")

    def _beside(self, path: str, number: int, flags: int) -> Row:
        """Return the row of a file that lies beside the layer's own."""
        name = path.rpartition("/")[2].encode()
        return self._leaf(name, number, path_hash(self._home + b"/" + name), path_hash(self._home), 1, flags)

    def _directory(self, directory: Directory, path: bytes) -> Iterator[Row]:
        """Give the rows of a directory and of everything below it."""
        settled: SettledDirectory = directory.attributes
        self._counts["dir"] += 1
        self._counts["xattr"] += settled.row.xattr is not None
        yield settled.row.row(path, EntryFlag.DIRECTORY)
        here = path_hash(path)
        links = settled.links
        for name, node in directory.items():
            if not isinstance(node, Directory):
                yield self._leaf(name, node, path_hash(path + b"/" + name), here, links.get(node, 1))
        for name, node in directory.items():
            if isinstance(node, Directory):
                yield from self._directory(node, path + b"/" + name)

    def _leaf(
        self,
        name: bytes,
        number: int,
        path: tuple[int, int],
        above: tuple[int, int],
        links: int,
        flags: int = 0,
    ) -> Row:
        tree, counts = self._tree, self._counts
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
                self._chunked.append((path, number))
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

    def _chunk_rows(self) -> Iterator[tuple[int, int, int, int, bytes]]:
        for path, number in self._chunked:
            for offset, size, digest in self._tree.chunks[number]:
                yield (*path, offset, size, digest)
