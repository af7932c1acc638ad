"""The catalogs of one revision that something is looked for in, and those that are changed for the next one."""

import stat
from collections.abc import Mapping
from contextlib import closing
from typing import Final

from services.common.layout import CATALOG_MARKER
from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError
from services.repository.native.records import ContentHash, EntryFlag, ObjectKind
from services.repository.native.storage.interface import NewObject, Storage
from services.repository.native.writer.catalog import Catalog, NestedCatalog
from services.repository.native.writer.compressor import Compressor, Pieces
from services.repository.native.writer.head import Root
from services.repository.native.writer.kept_catalogs import KeptCatalogs
from services.repository.native.writer.manifest import Manifest
from services.repository.native.writer.rows import MARKER_MODE, DirectoryRow, file_row
from services.repository.native.writer.splitting import split

__all__ = ["NEW_DIRECTORY", "OpenCatalog", "OpenCatalogs"]

NEW_DIRECTORY: Final = DirectoryRow(mode=stat.S_IFDIR | 0o755, uid=0, gid=0, mtime=0, mtimens=0, links=2)
"""A directory with nothing in it that belongs to nobody in particular."""


class OpenCatalog:
    """A catalog that an update looks into, and perhaps changes."""

    def __init__(self, catalog: Catalog, above: "OpenCatalog | None", name: ContentHash | None) -> None:
        self.catalog = catalog
        self.above = above
        self.name = name
        """Of what it was when it was stored; None where it is new."""
        self.before: Mapping[str, int] | None = None if name is None else catalog.counters()
        """What it counted then."""
        self.changed = False
        self.has_gaps = False
        """Whether entries have been removed."""

    def has_directory(self, path: bytes, change: int) -> None:
        """Note that a directory has gained or lost one."""
        self.catalog.link_directories(path, change)
        self.changed = True
        if self.catalog.prefix == path and self.above is not None:
            # The row in the catalog above says the same; `attach` brings it there.
            self.above.changed = True


class OpenCatalogs:
    """In memory until `store`; to be closed.

    Parameters
    ----------
    storage
        Where they are.
    compressor
        The repository's.
    kept
        Reads them.
    root
        The root catalog of the revision to begin with.
    """

    def __init__(self, *, storage: Storage, compressor: Compressor, kept: KeptCatalogs, root: ContentHash) -> None:
        self._storage = storage
        self._compressor = compressor
        self._kept = kept
        self._where = str(storage)
        self._open: dict[bytes, OpenCatalog] = {}
        self._objects: list[NewObject] = []
        self.root = self._opened(b"", root, kept.take_root(root), None)

    def close(self, *, unharmed: bool) -> None:
        """Free the memory.

        Parameters
        ----------
        unharmed
            Whether nothing has failed on the way.
        """
        if unharmed and self.root.name is not None and not self.root.changed:
            self._kept.return_root(self.root.name, self.root.catalog)
            del self._open[b""]
        for opened in self._open.values():
            opened.catalog.close()

    def at(self, path: bytes) -> OpenCatalog:
        """Return the catalog that the entries in a directory are in, or would be."""
        opened = self.root
        parts = path.split(b"/")
        for depth in range(2, len(parts) + 1):
            prefix = b"/".join(parts[:depth])
            there = self._open.get(prefix)
            if there is None:
                nested = opened.catalog.nested(prefix)
                if nested is None:
                    continue
                there = self._load(prefix, nested[0], opened)
            opened = there
        return opened

    def above(self, path: bytes) -> OpenCatalog:
        """Return the catalog that has an entry, or would have it; of a nested catalog's root, the row above counts."""
        return self.at(path.rpartition(b"/")[0])

    def read(self, name: ContentHash) -> Catalog:
        """Return a catalog that is only looked into, and the caller's to close."""
        return Catalog(self._kept.read(name), where=str(name))

    def detach(self, path: bytes) -> bool:
        """Remove a directory that is a catalog of its own, with everything below it; return whether it is one.

        The catalog may be damaged.
        """
        above = self.above(path)
        nested = above.catalog.nested(path)
        opened = self._open.get(path)
        if nested is not None:
            before = self._counted(above.catalog, path, nested[0]) if opened is None else opened.before
            above.catalog.detach(path, before or {})
        elif opened is not None:
            # It has been made for this revision, and nothing is said of it yet but its directory.
            above.catalog.remove(path, "self_dir")
        else:
            return False
        for inner in [place for place in self._open if place == path or place.startswith(path + b"/")]:
            self._open.pop(inner).catalog.close()
        above.has_directory(path.rpartition(b"/")[0], -1)
        above.has_gaps = True
        return True

    def _counted(self, above: Catalog, path: bytes, name: ContentHash) -> Mapping[str, int]:
        """Return what a catalog counts; of a damaged one, what the others directly below the same one leave to it."""
        counted = self._counters(name)
        if counted is not None:
            return counted
        others = [self._counters(each) or {} for place, each in above.all_nested() if place != path]
        return {
            counter: count - sum(other.get(counter, 0) for other in others) for counter, count in above.below().items()
        }

    def _counters(self, name: ContentHash) -> Mapping[str, int] | None:
        """Return what a catalog counts; None where it is damaged."""
        try:
            with closing(self.read(name)) as catalog:
                return catalog.counters()
        except (BrokenRepositoryError, ObjectMissingError):
            return None

    def is_whole(self, name: ContentHash) -> bool:
        """Tell whether a catalog can be read, and all below it are there."""
        waiting = [name]
        while waiting:
            try:
                with closing(self.read(waiting.pop())) as catalog:
                    nested = [each for _, each in catalog.all_nested()]
                    deeper = catalog.counters()["nested"] > len(nested)
            except (BrokenRepositoryError, ObjectMissingError):
                return False
            if any(self._storage.size(each.path(ObjectKind.CATALOG)) is None for each in nested):
                return False
            if deeper:
                waiting += nested
        return True

    def add_nested(self, path: bytes) -> OpenCatalog:
        """Make a new directory that is a catalog of its own."""
        above = self.above(path)
        mountpoint = NEW_DIRECTORY.row(path, EntryFlag.DIRECTORY | EntryFlag.NESTED_MOUNTPOINT)
        above.catalog.insert(mountpoint, "self_dir")
        above.has_directory(path.rpartition(b"/")[0], 1)
        return self._new(path, Catalog.create(path, NEW_DIRECTORY, where=self._new_where(path)), above)

    def split(self, path: bytes) -> OpenCatalog:
        """Give a directory a catalog of its own; none may begin below it yet."""
        above = self.above(path)
        catalog = split(above.catalog, path, where=self._new_where(path))
        above.changed = above.has_gaps = True
        return self._new(path, catalog, above)

    def _new(self, path: bytes, catalog: Catalog, above: OpenCatalog) -> OpenCatalog:
        opened = self._open[path] = OpenCatalog(catalog, above, name=None)
        opened.changed = True
        # Hidden from listings.
        place = path + b"/" + CATALOG_MARKER.encode()
        row = file_row(place, mode=MARKER_MODE, name=self.put(b""), size=0, flags=EntryFlag.HIDDEN)
        catalog.insert(row, "self_regular")
        return opened

    def _new_where(self, path: bytes) -> str:
        return f"{self._where}: new catalog of {path.decode()}"

    def opened(self) -> Mapping[bytes, OpenCatalog]:
        """Return the catalogs that have been opened, by their paths."""
        return dict(self._open)

    def put(self, content: bytes) -> ContentHash:
        """Make an object of a small file; it is stored with the catalogs."""
        stored = self._compressor.compress(content)
        name = self._compressor.name(stored)
        self._objects.append(NewObject(name.path(ObjectKind.FILE), stored))
        return name

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
        self.root.changed = True
        null = ContentHash.null(self._compressor.algorithm)
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
        root = self._encode(self.root, b"", properties, published)
        self.root.name, self.root.changed = root.name, False
        self._storage.put(self._objects)
        return Root(catalog=root.name, size=root.size, revision=revision, published=published)

    def _encode(self, opened: OpenCatalog, path: bytes, properties: Mapping[str, str], published: int) -> NestedCatalog:
        catalog = opened.catalog
        if opened.has_gaps:
            catalog.compact()
        catalog.set_properties({**properties, "last_modified": str(published)})
        made_of = None if opened.name is None else self._kept.kept(opened.name)
        content = catalog.content()
        pieces = self._compressor.compress_pieces(content, made_of or Pieces())
        stored = pieces.stored
        name = self._compressor.name(stored)
        self._objects.append(NewObject(name.path(ObjectKind.CATALOG), stored))
        self._kept.keep(name, pieces, instead=opened.name)
        root = catalog.directory(path)
        if root is None:
            raise BrokenRepositoryError(f"{self._where}: the catalog of /{path.decode()} has no root")
        return NestedCatalog(path=path, name=name, size=len(content), root=root, counters=catalog.counters())

    def _load(self, path: bytes, name: ContentHash, above: OpenCatalog) -> OpenCatalog:
        return self._opened(path, name, self._kept.load(name, self._kept.content(name)), above)

    def _opened(self, path: bytes, name: ContentHash, catalog: Catalog, above: OpenCatalog | None) -> OpenCatalog:
        if catalog.prefix != path:
            catalog.close()
            raise BrokenRepositoryError(f"{self._where}: the catalog {name} is of {catalog.prefix!r}, not of {path!r}")
        opened = self._open[path] = OpenCatalog(catalog, above, name)
        return opened
