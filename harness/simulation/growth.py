"""A repository of layers that have no content, grown by the publisher's own code for catalogs and heads.

A layer's own catalog does not change after it has been published, so what a revision writes depends on how many layers
there are, and not on what is in them. Layers are therefore given by their names alone; everything above them is real.
"""

import hashlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.common.digest import Digest
from services.common.layout import LAYERS_DIRECTORY, LayerLayout, layer_home, layer_tree
from services.common.repository_name import RepositoryName
from services.repository.native.access import RepositoryAccess
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.records import REFLOG, ContentHash, HashAlgorithm, ObjectKind, RefKind
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.writer.catalog import Catalog, NestedCatalog, create_schema
from services.repository.native.writer.compressor import Compressor, Pieces
from services.repository.native.writer.index import ContentIndex
from services.repository.native.writer.open_catalogs import NEW_DIRECTORY
from services.repository.native.writer.reflog import ReferenceLog
from services.repository.native.writer.rows import insert_rows, link_row
from services.repository.native.writer.state import Highest
from services.repository.native.writer.tree import RepositoryTree, TreeUpdate

__all__ = ["BATCH", "Indexed", "Point", "Revision", "grow", "index_of", "links_of", "log_of"]

BATCH: Final = 100
"""Layers of the larger of the two revisions that are measured at each point."""
_NAME: Final = RepositoryName("simulated.example.org")
_AT_ONCE: Final = 20_000
"""Layers that are added by one update on the way to a point."""
_ROWS_AT_ONCE: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """What one revision took."""

    written: int
    """New objects and the reference log, in bytes."""
    processor: float
    """Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A repository of some number of layers."""

    layout: LayerLayout
    layers: int
    root: int
    """Stored size of the root catalog, in bytes: what every client fetches with every revision that it sees."""
    root_expanded: int
    """The same, uncompressed: what publisher and clients have in memory."""
    shelf: int
    """Stored size of the catalog of one directory below `.layers`, in bytes."""
    one: Revision
    """A revision of one layer."""
    batch: Revision
    """A revision of `BATCH` layers."""


def grow(directory: Path, layout: LayerLayout, points: Sequence[int]) -> Iterator[Point]:
    """Grow a repository, and measure it at each of these numbers of layers.

    Parameters
    ----------
    directory
        What does not exist yet, and gets the repository and its keys.
    layout
        Whether layers have links in the root directory.
    points
        Numbers of layers, the smallest first; each gets 102 more.
    """
    directory.mkdir()
    with closing(_Growing(directory, layout)) as repository:
        for layers in points:
            while repository.layers < layers:
                repository.publish(min(_AT_ONCE, layers - repository.layers))
            # What is in memory after a large update is not what a publisher has that adds one to a repository.
            repository.publish(1)
            one, batch = repository.publish(1), repository.publish(BATCH)
            root, expanded = repository.root()
            yield Point(
                layout=layout,
                layers=layers,
                root=root,
                root_expanded=expanded,
                shelf=repository.shelf(),
                one=one,
                batch=batch,
            )


class _Growing:
    def __init__(self, directory: Path, layout: LayerLayout) -> None:
        self._storage = DirectoryStorage(directory / "repository")
        keys = KeyFiles(directory / "keys", _NAME)
        create_repository(name=_NAME, storage=self._storage, keys=keys, chosen=RepositoryFormat(), meta={})
        self._access = RepositoryAccess.open(name=_NAME, storage=self._storage, keys=keys)
        self._tree = RepositoryTree(storage=self._storage, compressor=self._access.compressor, layout=layout)
        self._directory = directory / "repository"
        self.layers = 0

    def close(self) -> None:
        """Free the memory."""
        self._tree.close()

    def publish(self, layers: int) -> Revision:
        """Publish layers as one revision."""
        before = self._stored()
        began = time.process_time()
        with self._access.changing() as manifest, TreeUpdate(self._tree, manifest.root) as update:
            for number in range(self.layers, self.layers + layers):
                digest = Digest(hashlib.sha256(b"layer %d" % number).hexdigest())
                update.add(_catalog(digest), digest)
            next_one = self._access.head.next_revision(manifest, Highest(0, 0))
            root = update.store(previous=manifest, revision=next_one.revision, published=next_one.published)
            self._access.head.publish(root, previous=manifest)
        processor = time.process_time() - began
        self.layers += layers
        log = (self._directory / REFLOG).stat().st_size
        return Revision(written=self._stored() - before + log, processor=processor)

    def root(self) -> tuple[int, int]:
        """Return the size of the root catalog, stored and expanded."""
        manifest = self._access.head.read()
        return self._size(manifest.root), manifest.root_size

    def shelf(self) -> int:
        """Return the stored size of the catalog of a directory below `.layers`."""
        path = f"/{LAYERS_DIRECTORY}/00".encode()
        name = self._access.head.read().root
        with closing(Catalog(self._tree.catalogs.read(name), where=str(name))) as root:
            nested = root.nested(path)
        return 0 if nested is None else self._size(nested[0])

    def _size(self, name: ContentHash) -> int:
        return (self._directory / name.path(ObjectKind.CATALOG)).stat().st_size

    def _stored(self) -> int:
        return sum(file.stat().st_size for file in self._directory.glob("data/??/*"))


def _catalog(digest: Digest) -> NestedCatalog:
    return NestedCatalog(
        path=f"/{layer_home(digest)}".encode(),
        name=ContentHash.of(digest.encode(), HashAlgorithm.SHA1),
        size=200_000,
        root=NEW_DIRECTORY,
    )


def links_of(layers: int) -> tuple[int, int]:
    """Return the size of a root catalog that holds links to layers and nothing else, stored and expanded, in bytes."""
    digests = (Digest(hashlib.sha256(b"layer %d" % number).hexdigest()) for number in range(layers))
    with closing(sqlite3.connect(":memory:")) as database:
        create_schema(database, {"revision": "1"})
        insert_rows(database, (link_row(f"/{digest}".encode(), layer_tree(digest).encode()) for digest in digests))
        database.commit()
        content = bytes(database.serialize())
    return len(Compressor(RepositoryFormat()).compress_pieces(content, Pieces()).stored), len(content)


def log_of(revisions: int) -> int:
    """Return the size of the reference log of a repository of some number of revisions, in bytes."""
    references = [
        (ContentHash.of(b"%s %d" % (kind.name.encode(), number), HashAlgorithm.SHA1), kind)
        for number in range(revisions)
        for kind in (RefKind.CATALOG, RefKind.HISTORY)
    ]
    return len(ReferenceLog().add(None, references, name=_NAME, timestamp=int(time.time())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """An index of content."""

    contents: int
    size: int
    """Of its file, in bytes."""
    processor: float
    """Seconds to look for all, and to add them."""


def index_of(directory: Path, contents: int) -> Indexed:
    """Measure the publisher's index of content with some number of distinct contents.

    Parameters
    ----------
    directory
        What does not exist yet, and gets the index.
    contents
        How many.
    """
    directory.mkdir()
    path = directory / "index.sqlite"
    began = time.process_time()
    index = ContentIndex(path)
    for start in range(0, contents, _ROWS_AT_ONCE):
        numbers = range(start, min(contents, start + _ROWS_AT_ONCE))
        keys = sorted(hashlib.sha256(b"%d" % number).digest() for number in numbers)
        index.find(keys)
        index.add([(key, "", hashlib.sha1(key, usedforsecurity=False).digest()) for key in keys])
    index.close()
    return Indexed(contents=contents, size=path.stat().st_size, processor=time.process_time() - began)
