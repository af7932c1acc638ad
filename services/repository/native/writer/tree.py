"""The catalogs above the layers, and how a batch of layers gets into them.

::

    /                        the root catalog: `.layers`, its subdirectories, and (layout flat) the links
    /.layers/XX              a catalog each, so that what a publish rewrites does not grow with the number of layers
    /.layers/XX/DIGEST       a layer's home, a catalog each

An imported repository may have these directories in other catalogs: each is looked for where it is.
"""

import stat
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from types import TracebackType
from typing import Final, Self

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.layout import CATALOG_MARKER, LAYERS_DIRECTORY, LayerLayout, layer_home, layer_tree, sidecar_path
from services.repository.errors import LayerAdditionError
from services.repository.interface import ListedLayer
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.records import ContentHash, EntryFlag, ObjectKind
from services.repository.native.storage.interface import NewObject, Storage
from services.repository.native.writer.catalog import (
    MARKER_MODE,
    Catalog,
    DirectoryRow,
    NestedCatalog,
    Row,
    file_row,
    link_row,
)
from services.repository.native.writer.compressor import Compressor, Pieces
from services.repository.native.writer.head import Root
from services.repository.native.writer.kept_catalogs import KeptCatalogs
from services.repository.native.writer.manifest import Manifest

__all__ = ["RepositoryTree", "TreeUpdate"]

_LAYERS: Final = b"/" + LAYERS_DIRECTORY.encode()


class RepositoryTree:
    """Reads the catalogs above the layers; blocking, safe for several threads.

    Parameters
    ----------
    layout
        Whether layers get links in the root directory.
    """

    def __init__(self, *, storage: Storage, compressor: Compressor, layout: LayerLayout) -> None:
        self.storage = storage
        self.compressor = compressor
        self.layout = layout
        self.catalogs = KeptCatalogs(storage=storage, compressor=compressor)

    def close(self) -> None:
        """Free the memory."""
        self.catalogs.close()

    def find(self, root: ContentHash, digest: Digest) -> ListedLayer | None:
        """Return what is in the place of a layer in a revision, if anything."""
        with TreeUpdate(self, root) as update:
            return update.find(digest)

    def list_layers(self, root: ContentHash, shard: str) -> Sequence[ListedLayer]:
        """List the layers of a revision whose digests begin with two hex digits, in their order."""
        with TreeUpdate(self, root) as update:
            return [found for digest in update.digests(shard) if (found := update.find(digest))]


class _Open:
    """A catalog that an update looks into, and perhaps changes."""

    def __init__(self, catalog: Catalog, above: "_Open | None", name: ContentHash | None) -> None:
        self.catalog = catalog
        self.above = above
        self.name = name
        """Of what it was when it was stored; None where it is new."""
        self.before: Mapping[str, int] | None = None if name is None else catalog.counters()
        """What it counted then."""
        self.changed = False


class TreeUpdate:
    """A context manager: what is to be changed in one revision, in memory until `store`.

    Parameters
    ----------
    tree
        Where catalogs come from.
    root
        The root catalog of the revision to begin with.
    """

    def __init__(self, tree: RepositoryTree, root: ContentHash) -> None:
        self._tree = tree
        self._where = str(tree.storage)
        self._open: dict[bytes, _Open] = {}
        self._objects: list[NewObject] = []
        self._root = self._opened(b"", root, tree.catalogs.take_root(root), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self._root.name is not None and not self._root.changed:
            self._tree.catalogs.return_root(self._root.name, self._root.catalog)
            del self._open[b""]
        for opened in self._open.values():
            opened.catalog.close()

    def find(self, digest: Digest) -> ListedLayer | None:
        """Return what is in the place of a layer, if anything."""
        home = _home(digest)
        shelf = self._catalog_at(home).catalog
        if not shelf.holds(home):
            return None
        sidecar = b"/" + sidecar_path(digest).encode()
        whole = shelf.holds(sidecar)
        nested = shelf.nested(home)
        if nested is not None:
            with closing(Catalog(self._tree.catalogs.read(nested[0]), where=str(nested[0]))) as layer:
                whole = layer.holds(sidecar)
        linked = self._tree.layout is LayerLayout.DUCC or self._root.catalog.holds(_link(digest))
        return ListedLayer(digest=digest, whole=whole, linked=linked)

    def digests(self, shard: str) -> list[Digest]:
        """List what is below `.layers/XX` and has the name of a layer."""
        shelf = _LAYERS + b"/" + shard.encode()
        digests = []
        for name in self._catalog_at(shelf).catalog.names(shelf):
            with suppress(InvalidValueError, UnicodeDecodeError):
                digests.append(Digest(name.decode()))
        return sorted(digests)

    def add(self, layer: NestedCatalog, digest: Digest) -> None:
        """Add a layer whose catalog has been stored.

        Raises
        ------
        LayerAdditionError
            Its place is taken; nothing has been changed.
        """
        link = _link(digest)
        with_link = self._tree.layout is LayerLayout.FLAT
        if with_link and self._root.catalog.holds(link):
            raise LayerAdditionError(f"/{digest} is there already, and is no layer that this publisher knows")
        if self._catalog_at(layer.path).catalog.holds(layer.path):
            raise LayerAdditionError(f"{layer_home(digest)} is there already")
        home = layer.path
        shelf = self._shelf(home.rpartition(b"/")[0])
        shelf.catalog.insert(layer.root.row(home, EntryFlag.DIRECTORY | EntryFlag.NESTED_MOUNTPOINT), "self_dir")
        shelf.catalog.attach(layer, before=None)
        self._has_directory(shelf, home.rpartition(b"/")[0], 1)
        if with_link:
            self._root.catalog.insert(link_row(link, layer_tree(digest).encode()), "self_symlink")
            self._root.changed = True

    def remove(self, digest: Digest) -> bool:
        """Remove a layer; return whether it was there."""
        home = _home(digest)
        shelf = self._catalog_at(home.rpartition(b"/")[0])
        nested = shelf.catalog.nested(home)
        if nested is None:
            return False
        layer = self._load(home, nested[0], shelf)
        del self._open[home]
        shelf.catalog.detach(home, layer.before or {})
        layer.catalog.close()
        self._has_directory(shelf, home.rpartition(b"/")[0], -1)
        shelf.catalog.compact()
        link = _link(digest)
        if self._root.catalog.link_target(link) == layer_tree(digest).encode():
            self._root.catalog.remove(link, "self_symlink")
            self._root.catalog.compact()
            self._root.changed = True
        return True

    def store(self, *, previous: Manifest, revision: int, published: int) -> Root:
        """Put the catalogs that have changed into the storage, from the leaves up, and return the new root.

        Parameters
        ----------
        previous
            The head so far.
        revision, published
            Number and time of the new one.
        """
        # The root catalog changes with every revision, since it says which one it is.
        self._root.changed = True
        null = ContentHash.null(self._tree.compressor.algorithm)
        for path in sorted(self._open, key=len, reverse=True):
            opened = self._open[path]
            if opened.changed and opened.above is not None:
                # None has a predecessor: a stratum 1 would follow it, and fail for good where it has been collected.
                # The chain of root catalogs brings it to what is still there.
                properties = {"revision": str(opened.catalog.revision + 1), "previous_revision": str(null)}
                nested = self._encode(opened, path, properties, published)
                opened.above.catalog.attach(nested, before=opened.before)
                opened.above.changed = True
        properties = {"revision": str(revision), "TTL": str(previous.ttl), "previous_revision": str(previous.root)}
        root = self._encode(self._root, b"", properties, published)
        self._root.name, self._root.changed = root.name, False
        self._tree.storage.put(self._objects)
        return Root(catalog=root.name, size=root.size, revision=revision, published=published)

    def _encode(self, opened: _Open, path: bytes, properties: Mapping[str, str], published: int) -> NestedCatalog:
        compressor = self._tree.compressor
        catalog = opened.catalog
        catalog.set_properties({**properties, "last_modified": str(published)})
        made_of = None if opened.name is None else self._tree.catalogs.kept(opened.name)
        content = catalog.content()
        pieces = compressor.compress_pieces(content, made_of or Pieces())
        stored = pieces.stored
        name = compressor.name(stored)
        self._objects.append(NewObject(name.path(ObjectKind.CATALOG), stored))
        self._tree.catalogs.keep(name, pieces, instead=opened.name)
        root = catalog.directory(path)
        if root is None:
            raise BrokenRepositoryError(f"{self._where}: the catalog of /{path.decode()} has no root")
        return NestedCatalog(path=path, name=name, size=len(content), root=root, counters=catalog.counters())

    def _catalog_at(self, path: bytes) -> _Open:
        """Return the catalog that an entry is in, or would be; a nested catalog's root counts as in it."""
        opened = self._root
        parts = path.split(b"/")
        for depth in range(2, len(parts) + 1):
            prefix = b"/".join(parts[:depth])
            there = self._open.get(prefix)
            if there is None:
                nested = opened.catalog.nested(prefix)
                if nested is None:
                    continue
                if prefix == path and depth > _DEPTH_OF_SHELVES:
                    break  # of a layer only the row above counts, its own catalog may be large
                there = self._load(prefix, nested[0], opened)
            opened = there
        return opened

    def _load(self, path: bytes, name: ContentHash, above: _Open) -> _Open:
        return self._opened(path, name, self._tree.catalogs.load(name, self._tree.catalogs.content(name)), above)

    def _opened(self, path: bytes, name: ContentHash, catalog: Catalog, above: _Open | None) -> _Open:
        if catalog.prefix != path:
            catalog.close()
            raise BrokenRepositoryError(f"{self._where}: the catalog {name} is of {catalog.prefix!r}, not of {path!r}")
        opened = self._open[path] = _Open(catalog, above, name)
        return opened

    def _shelf(self, path: bytes) -> _Open:
        """Return the catalog that layers of one directory below `.layers` are in, both made if they are missing."""
        layers = self._catalog_at(_LAYERS)
        if layers.catalog.directory(_LAYERS) is None:
            row = _NEW_DIRECTORY.row(_LAYERS, EntryFlag.DIRECTORY)
            layers.catalog.insert(row, "self_dir")
            self._has_directory(layers, b"", 1)
        opened = self._catalog_at(path)
        if opened.catalog.directory(path) is not None:
            return opened
        mountpoint = _NEW_DIRECTORY.row(path, EntryFlag.DIRECTORY | EntryFlag.NESTED_MOUNTPOINT)
        layers.catalog.insert(mountpoint, "self_dir")
        self._has_directory(layers, _LAYERS, 1)
        catalog = Catalog.create(path, _NEW_DIRECTORY, where=f"{self._where}: new catalog of {path.decode()}")
        shelf = self._open[path] = _Open(catalog, layers, name=None)
        catalog.insert(self._marker(path), "self_regular")
        return shelf

    def _marker(self, path: bytes) -> Row:
        """Return the row that marks a nested catalog, hidden from listings."""
        stored = self._tree.compressor.compress(b"")
        name = self._tree.compressor.name(stored)
        self._objects.append(NewObject(name.path(ObjectKind.FILE), stored))
        place = path + b"/" + CATALOG_MARKER.encode()
        return file_row(place, mode=MARKER_MODE, name=name, size=0, flags=EntryFlag.HIDDEN)

    def _has_directory(self, opened: _Open, path: bytes, change: int) -> None:
        """Note that a directory has gained or lost one."""
        opened.catalog.link_directories(path, change)
        opened.changed = True
        if opened.catalog.prefix == path and opened.above is not None:
            # The row in the catalog above says the same; `attach` brings it there.
            opened.above.changed = True


_NEW_DIRECTORY: Final = DirectoryRow(mode=stat.S_IFDIR | 0o755, uid=0, gid=0, mtime=0, mtimens=0, links=2)
_DEPTH_OF_SHELVES: Final = 3
"""Number of parts of `/.layers/XX`."""


def _home(digest: Digest) -> bytes:
    return b"/" + layer_home(digest).encode()


def _link(digest: Digest) -> bytes:
    return b"/" + str(digest).encode()
