"""The catalogs above the layers, and how a batch of layers gets into them.

::

    /                        the root catalog: `.layers`, its subdirectories, and (layout flat) the links
    /.layers/XX              a catalog each, so that what a publish rewrites does not grow with the number of layers
    /.layers/XX/DIGEST       a layer's home, a catalog each
    /.flat                   flat images, a catalog, and more of them (`flat/places`)
    /.metadata               the documents of images, a catalog, and more of them where there are many (`image_rows`)
    /.multiarch, /REGISTRY   the names of flat images (`public_names`)

An imported repository may have these directories in other catalogs: each is looked for where it is.
"""

import stat
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, suppress
from types import TracebackType
from typing import Final, Self

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.common.layout import LAYERS_DIRECTORY, LayerLayout, layer_home, layer_tree, sidecar_path
from services.repository.ducc import is_ducc_flat, is_ducc_layer
from services.repository.errors import LayerAdditionError
from services.repository.flat.differences import DifferenceReports
from services.repository.interface import ListedLayer
from services.repository.native.flat.places import FlatPlaces, flat_path
from services.repository.native.records import ContentHash, EntryFlag
from services.repository.native.storage.interface import Storage
from services.repository.native.writer.catalog import Catalog, NestedCatalog
from services.repository.native.writer.compressor import Compressor
from services.repository.native.writer.file_entries import child_at
from services.repository.native.writer.head import Root
from services.repository.native.writer.image_rows import ImageRows
from services.repository.native.writer.kept_catalogs import KeptCatalogs
from services.repository.native.writer.manifest import Manifest
from services.repository.native.writer.open_catalogs import NEW_DIRECTORY, OpenCatalog, OpenCatalogs
from services.repository.native.writer.public_names import PublicNames
from services.repository.native.writer.rows import link_row
from services.repository.native.writer.settling import split_grown
from services.repository.native.writer.small_files import read_small_file
from services.repository.native.writer.small_objects import SmallObjects
from services.repository.native.writer.tree_rows import TreeRows

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
        self.objects = SmallObjects(storage, compressor)
        self.catalogs = KeptCatalogs(storage=storage, compressor=compressor)

    def close(self) -> None:
        """Free the memory."""
        self.catalogs.close()

    def find(self, root: ContentHash, digest: Digest) -> ListedLayer | None:
        """Return what is in the place of a layer in a revision, if anything."""
        with TreeUpdate(self, root) as update:
            return update.find(digest)

    def list_layers(self, root: ContentHash, shard: str, *, without: Collection[Digest] = ()) -> Sequence[ListedLayer]:
        """List the layers of a revision whose digests begin with two hex digits, in their order.

        Parameters
        ----------
        without
            Layers that are passed over, and may be damaged.
        """
        with TreeUpdate(self, root) as update:
            digests = [digest for digest in update.digests(shard) if digest not in without]
            return [found for digest in digests if (found := update.find(digest))]

    def read_image(self, root: ContentHash, name: ImageName) -> Mapping[str, bytes] | None:
        """Return the documents of an image in a revision; None if there is no such image."""
        with TreeUpdate(self, root) as update:
            return update.images.read(name)

    def list_flats(self, root: ContentHash) -> Collection[Digest]:
        """List the flat images of a revision by their configurations."""
        with TreeUpdate(self, root) as update:
            return frozenset(update.flats.configs())

    def ducc_flats(self, root: ContentHash, configs: Collection[Digest]) -> Collection[Digest]:
        """Return those of some flat images of a revision that DUCC has made."""
        with TreeUpdate(self, root) as update:
            return frozenset(config for config in configs if update.is_ducc_flat(config))

    def flats_of(self, root: ContentHash, name: ImageName) -> Collection[Digest]:
        """Return the configurations of the flat images that the name of an image leads to in a revision.

        One that is damaged is none: whoever asks for the image again gets it made anew.
        """
        with TreeUpdate(self, root) as update:
            return frozenset(config for config in update.names.flats(name) if not update.flats.is_damaged(config))

    def list_images(self, root: ContentHash) -> Sequence[ImageName]:
        """List the images of a revision, in the order of their names."""
        with TreeUpdate(self, root) as update:
            return update.images.names()


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
        self._layout = tree.layout
        self._catalogs = OpenCatalogs(storage=tree.storage, compressor=tree.compressor, kept=tree.catalogs, root=root)
        self.images = ImageRows(self._catalogs, tree.objects)
        """The documents of the images of the revision."""
        self.names = PublicNames(self._catalogs)
        """The names of its flat images."""
        self.flats = FlatPlaces(self._catalogs)
        """The flat images of the revision."""
        self.trees = TreeRows(self._catalogs)
        """What is generated in the revision besides."""
        self._objects = tree.objects

        self.reports: dict[Digest, DifferenceReports] = {}
        """What people must know of the flat images that have been made, by their configurations."""

    def attach_flat(self, config: Digest, flat: NestedCatalog, report: DifferenceReports) -> None:
        """Put a flat image into its place, and remember what people must know of it."""
        self.flats.attach(flat)
        self.reports[config] = report

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._catalogs.close(unharmed=kind is None)

    def holds(self, digest: Digest) -> bool:
        """Tell whether something is in the place of a layer; it may be damaged."""
        return self._catalogs.above(_home(digest)).catalog.holds(_home(digest))

    def find(self, digest: Digest) -> ListedLayer | None:
        """Return what is in the place of a layer, if anything."""
        home = _home(digest)
        shelf = self._catalogs.above(home).catalog
        if not shelf.holds(home):
            return None
        sidecar = b"/" + sidecar_path(digest).encode()
        whole = shelf.holds(sidecar)
        nested = shelf.nested(home)
        if nested is not None:
            with closing(self._catalogs.read(nested[0])) as layer:
                whole = layer.holds(sidecar)
        linked = self._layout is LayerLayout.DUCC or self._catalogs.root.catalog.holds(_link(digest))
        return ListedLayer(digest=digest, whole=whole, linked=linked)

    def read(self, path: bytes) -> bytes | None:
        """Read a small file that has been published; None where none is.

        Raises
        ------
        NativeError
            It cannot be read.
        """
        return self._read(self._catalogs.above(path).catalog, path)

    def sidecar(self, digest: Digest) -> bytes | None:
        """Read the sidecar of a layer, which may be new; None if there is no such layer. Errors as `read`."""
        path = b"/" + sidecar_path(digest).encode()
        nested = self._catalogs.above(_home(digest)).catalog.nested(_home(digest))
        if nested is None:
            return self.read(path)
        with closing(self._catalogs.read(nested[0])) as layer:
            return self._read(layer, path)

    def _read(self, catalog: Catalog, path: bytes) -> bytes | None:
        file = child_at(catalog, path)
        if file is None or not stat.S_ISREG(file.mode):
            return None
        return read_small_file(self._objects, catalog, path, file)

    def split_grown(self, path: bytes, *, largest: int, worth: int) -> None:
        """Split the catalogs at and below a directory as `settling.split_grown` does."""
        split_grown(self._catalogs, path, largest=largest, worth=worth)

    def digests(self, shard: str) -> list[Digest]:
        """List what is below `.layers/XX` and has the name of a layer."""
        shelf = _LAYERS + b"/" + shard.encode()
        digests = []
        for name in self._catalogs.at(shelf).catalog.names(shelf):
            with suppress(InvalidValueError, UnicodeDecodeError):
                digests.append(Digest(name.decode()))
        return sorted(digests)

    def catalog_of(self, digest: Digest) -> ContentHash | None:
        """Return the catalog of a layer's home, of the revision or added to it; None where the layer has none."""
        home = _home(digest)
        nested = self._catalogs.above(home).catalog.nested(home)
        return None if nested is None else nested[0]

    def put_object(self, content: bytes) -> ContentHash:
        """Make an object of a small file; it is stored with the catalogs."""
        return self._catalogs.put(content)

    def add(self, layer: NestedCatalog, digest: Digest) -> None:
        """Add a layer whose catalog has been stored, in the place of what DUCC may have made of it.

        Raises
        ------
        LayerAdditionError
            Its place is taken; nothing has been changed.
        """
        link = _link(digest)
        root = self._catalogs.root
        with_link = self._layout is LayerLayout.FLAT
        if with_link and root.catalog.holds(link):
            raise LayerAdditionError(f"/{digest} is there already, and is no layer that this publisher knows")
        home = layer.path
        if self._catalogs.above(home).catalog.holds(home):
            self._make_way(home, digest)
        shelf = self._shelf(home.rpartition(b"/")[0])
        shelf.catalog.insert(layer.root.row(home, EntryFlag.DIRECTORY | EntryFlag.NESTED_MOUNTPOINT), "self_dir")
        shelf.catalog.attach(layer, before=None)
        shelf.has_directory(home.rpartition(b"/")[0], 1)
        if with_link:
            root.catalog.insert(link_row(link, layer_tree(digest).encode()), "self_symlink")
            root.changed = True

    def replace(self, layer: NestedCatalog, digest: Digest) -> None:
        """Add a layer whose catalog has been stored, in the place of itself, which may be damaged. Errors as `add`."""
        root, link = self._catalogs.root.catalog, _link(digest)
        if not root.holds(link) or root.link_target(link) == layer_tree(digest).encode():
            self.remove(digest)
        self.add(layer, digest)

    def is_ducc_flat(self, config: Digest) -> bool:
        """Tell whether a flat image is there that DUCC has made."""
        if self.flats.is_damaged(config) or self.flats.find(config) is not None:
            return False
        return is_ducc_flat(name.decode(errors="replace") for name in self.trees.names(flat_path(config)))

    def _make_way(self, home: bytes, digest: Digest) -> None:
        """Remove what is in the place of a layer, if DUCC has put it there."""
        there = self.find(digest)
        names = [name.decode(errors="replace") for name in self.trees.names(home)]
        if there is None or there.whole or not is_ducc_layer(names):
            raise LayerAdditionError(f"{layer_home(digest)} is there already")
        self.trees.remove(home)

    def remove(self, digest: Digest) -> bool:
        """Remove a layer; return whether it was there."""
        if not self._catalogs.detach(_home(digest)):
            return False
        link = _link(digest)
        root = self._catalogs.root
        if root.catalog.link_target(link) == layer_tree(digest).encode():
            root.catalog.remove(link, "self_symlink")
            root.changed = root.has_gaps = True
        return True

    def store(self, *, previous: Manifest, revision: int, published: int) -> Root:
        """Put the catalogs that have changed into the storage, and return the new root.

        Parameters
        ----------
        previous
            The head so far.
        revision, published
            Number and time of the new one.
        """
        self.images.settle()
        self.names.settle()
        return self._catalogs.store(previous=previous, revision=revision, published=published)

    def _shelf(self, path: bytes) -> OpenCatalog:
        """Return the catalog that layers of one directory below `.layers` are in, both made if they are missing."""
        layers = self._catalogs.at(_LAYERS)
        if layers.catalog.directory(_LAYERS) is None:
            layers.catalog.insert(NEW_DIRECTORY.row(_LAYERS, EntryFlag.DIRECTORY), "self_dir")
            layers.has_directory(b"", 1)
        opened = self._catalogs.at(path)
        return opened if opened.catalog.directory(path) is not None else self._catalogs.add_nested(path)


def _home(digest: Digest) -> bytes:
    return b"/" + layer_home(digest).encode()


def _link(digest: Digest) -> bytes:
    return b"/" + str(digest).encode()
