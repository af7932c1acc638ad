"""From the catalogs of an image's layers to those of its flat image, which nothing refers to yet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from services.common.digest import Digest
from services.common.layout import layer_home, layer_tree
from services.repository.flat.configuration import RunConfiguration
from services.repository.flat.differences import Difference, DifferenceReports
from services.repository.flat.modes import Modes
from services.repository.flat.singularity import generated_entries
from services.repository.native.flat.catalogs import FlatCatalogs
from services.repository.native.flat.generated import add_generated
from services.repository.native.flat.layer_rows import LayerRows
from services.repository.native.flat.merge import merge
from services.repository.native.records import ContentHash
from services.repository.native.writer.catalog import NestedCatalog
from services.repository.native.writer.catalog_files import CatalogFiles

__all__ = ["ComposedFlat", "FlatComposer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposedFlat:
    """A flat image whose catalogs have been put into the storage."""

    catalog: NestedCatalog
    """Of its root."""
    differences: DifferenceReports
    """What people must know of it."""


class FlatComposer:
    """Composes flat images; blocking, safe for several threads.

    Parameters
    ----------
    read
        Returns the uncompressed database of a layer's catalog.
    read_file
        Returns the content of a small file.
    files
        Stores catalogs, and has kept the rows of those that were stored last.
    """

    def __init__(
        self, *, read: Callable[[ContentHash], bytes], read_file: Callable[[ContentHash], bytes], files: CatalogFiles
    ) -> None:
        self._read = read
        self._read_file = read_file
        self._files = files

    def compose(
        self,
        path: bytes,
        *,
        layers: Sequence[tuple[Digest, ContentHash]],
        configuration: RunConfiguration,
        modes: Modes,
        put: Callable[[bytes], ContentHash],
        properties: Mapping[str, str],
    ) -> ComposedFlat:
        """Compose one.

        Parameters
        ----------
        path
            Where it is to be in the repository.
        layers
            The layers, the base first, and the catalogs of their homes.
        configuration
            How it is to be run.
        modes
            Which permissions are mended.
        put
            Makes an object of a small file, which is stored before the image is visible.
        properties
            What the catalog of its root says of itself.

        Raises
        ------
        ImageRefusedError
            A layer's deletions are not in its tree.
        BrokenRepositoryError
            A layer's catalog is not as it should be.
        StorageError
            The storage failed.
        OSError
            A catalog cannot be written.
        """
        rows = LayerRows(self._read, self._read_file, self._files.kept)
        roots = {}
        for digest, catalog in layers:
            if digest not in roots:  # the same empty layer is often there several times
                roots[digest] = rows.add(
                    catalog, b"/" + layer_home(digest).encode(), b"/" + layer_tree(digest).encode()
                )
        tree = merge(rows, [roots[digest] for digest, _ in layers])
        tree.differences.variables(configuration.left_out)
        for left_out in add_generated(tree, generated_entries(configuration), put):
            tree.differences.add(Difference.NOT_GENERATED, left_out)
        catalogs = FlatCatalogs(
            path=path,
            tree=tree,
            chunks=rows.chunks,
            modes=modes,
            files=self._files,
            marker=put(b""),
            properties=properties,
        )
        return ComposedFlat(catalog=catalogs.store(), differences=tree.differences.report())
