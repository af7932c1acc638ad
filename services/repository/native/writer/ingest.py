"""From a verified layer archive to objects and the layer's catalog, outside of any transaction."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.common.archive.layer import read_layer
from services.common.archive.notes import Notes
from services.common.digest import Digest
from services.common.layout import layer_home
from services.common.sidecar import LayerSidecar
from services.common.threads import Stop
from services.repository.layer import VerifiedLayer
from services.repository.native.records import ObjectKind
from services.repository.native.storage.interface import Storage
from services.repository.native.writer.catalog import MARKER_MODE, NestedCatalog
from services.repository.native.writer.compressor import Compressor
from services.repository.native.writer.index import NewRows
from services.repository.native.writer.layer_catalog import HOME, LayerCatalog
from services.repository.native.writer.layer_tree import CatalogTree
from services.repository.native.writer.pool import WorkerPool

__all__ = ["IngestedLayer", "LayerIngest"]

_SIDECAR_MODE: Final = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestedLayer:
    """A layer whose objects and catalog have been put into the storage, where nothing refers to them yet."""

    sidecar: LayerSidecar
    catalog: NestedCatalog
    new: NewRows
    """What the index is to know when the objects are on the disk."""


class LayerIngest:
    """Reads layers; blocking, safe for several threads.

    Parameters
    ----------
    storage
        Gets the catalogs; objects go where the pool writes them.
    temporary
        A directory for files that nothing needs after a kill.
    """

    def __init__(self, *, storage: Storage, pool: WorkerPool, compressor: Compressor, temporary: Path) -> None:
        self._storage = storage
        self._pool = pool
        self._compressor = compressor
        self._temporary = temporary

    def ingest(self, layer: VerifiedLayer, stop: Stop) -> IngestedLayer:
        """Read a layer to its end, check all of it, and put its objects and its catalog into the storage.

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
        """Write the layer's catalog, and put it into the storage."""
        marker = tree.unnamed(b"", MARKER_MODE)
        described = tree.unnamed(sidecar.encode(), _SIDECAR_MODE)
        tree.content.finish()
        catalog = LayerCatalog(digest=digest, tree=tree, algorithm=self._compressor.algorithm)
        plain = self._temporary / secrets.token_hex(8)
        stored = plain.with_suffix(".z")
        try:
            catalog.write(plain, marker=marker, sidecar=described)
            with plain.open("rb", buffering=0) as source, stored.open("xb", buffering=0) as sink:
                name = self._compressor.compress_stream(source, sink)
            self._storage.put_file(name.path(ObjectKind.CATALOG), stored)
            return NestedCatalog(
                path=b"/" + layer_home(digest).encode(),
                name=name,
                size=plain.stat().st_size,
                root=HOME,
                counters=catalog.counters,
            )
        finally:
            plain.unlink(missing_ok=True)
            stored.unlink(missing_ok=True)
