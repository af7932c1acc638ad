"""From a verified layer archive to objects and the layer's catalog, outside of any transaction."""

from dataclasses import dataclass
from typing import Final

from services.common.archive.layer import read_layer
from services.common.archive.notes import Notes
from services.common.digest import Digest
from services.common.sidecar import LayerSidecar
from services.common.threads import Stop
from services.repository.layer import VerifiedLayer
from services.repository.native.writer.catalog import NestedCatalog
from services.repository.native.writer.catalog_files import CatalogFiles
from services.repository.native.writer.index import NewRows
from services.repository.native.writer.layer_catalog import LayerCatalogs
from services.repository.native.writer.layer_tree import CatalogTree
from services.repository.native.writer.pool import WorkerPool
from services.repository.native.writer.rows import MARKER_MODE

__all__ = ["IngestedLayer", "LayerIngest"]

_SIDECAR_MODE: Final = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestedLayer:
    """A layer whose objects and catalogs have been put into the storage, where nothing refers to them yet."""

    sidecar: LayerSidecar
    catalog: NestedCatalog
    """Of the layer's home."""
    new: NewRows
    """What the index is to know when the objects are on the disk."""


class LayerIngest:
    """Reads layers; blocking, safe for several threads.

    Parameters
    ----------
    pool
        Makes objects of content.
    catalogs
        Stores the catalogs.
    """

    def __init__(self, *, pool: WorkerPool, catalogs: CatalogFiles) -> None:
        self._pool = pool
        self._catalogs = catalogs

    def ingest(self, layer: VerifiedLayer, stop: Stop) -> IngestedLayer:
        """Read a layer to its end, check all of it, and put its objects and its catalogs into the storage.

        Raises
        ------
        LayerRefusedError
            The layer is at fault.
        RepositoryError
            The repository is.
        OSError
            The spool failed.
        """
        notes = Notes()
        with CatalogTree(self._pool, notes) as tree:
            sidecar = layer.read(
                lambda stream: read_layer(stream, tree, limits=layer.limits, notes=notes),
                stop=stop,
                deletions="in-tree",
            )
            catalog = self._store(tree, layer.digest, sidecar)
            return IngestedLayer(sidecar=sidecar, catalog=catalog, new=tree.content.new)

    def _store(self, tree: CatalogTree, digest: Digest, sidecar: LayerSidecar) -> NestedCatalog:
        """Write the layer's catalogs, and put them into the storage."""
        marker = tree.unnamed(b"", MARKER_MODE)
        described = tree.unnamed(sidecar.encode(), _SIDECAR_MODE)
        tree.content.finish()
        return LayerCatalogs(digest=digest, tree=tree, files=self._catalogs, marker=marker, sidecar=described).store()
