"""From a verified layer archive to objects and the layer's catalog, outside of any transaction."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Final

from services.common.archive.layer import read_layer
from services.common.archive.notes import Notes
from services.common.digest import Digest
from services.common.layout import sidecar_path, tar_split_path
from services.common.sidecar import LayerSidecar
from services.common.threads import Stop
from services.repository.layer import VerifiedLayer
from services.repository.native.writer.catalog import NestedCatalog
from services.repository.native.writer.catalog_files import CatalogFiles
from services.repository.native.writer.content import Encode
from services.repository.native.writer.layer_catalog import LayerCatalogs
from services.repository.native.writer.layer_tree import CatalogTree
from services.repository.native.writer.new_rows import NewRows
from services.repository.native.writer.pool import WorkerPool
from services.repository.native.writer.rows import MARKER_MODE
from services.repository.podman.tar_split import TarSplit

__all__ = ["IngestedLayer", "LayerIngest"]

_MODE: Final = 0o644
_IN_MEMORY: Final = 256 << 10
"""Size up to which what belongs to an archive besides its files waits in memory, in bytes."""


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
    temporary
        Directory for files without a name.
    """

    def __init__(self, *, pool: WorkerPool, catalogs: CatalogFiles, temporary: Path) -> None:
        self._pool = pool
        self._catalogs = catalogs
        self._temporary = temporary

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
        return self._ingest(layer, stop, self._pool.encode)

    def ingest_anew(self, layer: VerifiedLayer, stop: Stop) -> IngestedLayer:
        """Do the same and write each object over whatever is in its place. Errors as `ingest`."""
        return self._ingest(layer, stop, self._pool.encode_anew)

    def _ingest(self, layer: VerifiedLayer, stop: Stop, encode: Encode) -> IngestedLayer:
        notes = Notes()
        with (
            CatalogTree(self._pool, encode, notes) as tree,
            SpooledTemporaryFile(max_size=_IN_MEMORY, dir=str(self._temporary)) as split,
        ):
            witness = TarSplit(split)
            sidecar = layer.read(
                lambda stream: read_layer(stream, tree, limits=layer.limits, notes=notes, witness=witness),
                stop=stop,
                deletions="in-tree",
            )
            sidecar = witness.finish(sidecar)
            catalog = self._store(tree, layer.digest, sidecar, split)
            return IngestedLayer(sidecar=sidecar, catalog=catalog, new=tree.content.new)

    def _store(
        self, tree: CatalogTree, digest: Digest, sidecar: LayerSidecar, split: SpooledTemporaryFile[bytes]
    ) -> NestedCatalog:
        """Write the layer's catalogs, and put them into the storage."""
        marker = tree.unnamed(b"", MARKER_MODE)
        beside = {sidecar_path(digest): tree.unnamed(sidecar.encode(), _MODE)}
        if sidecar.tar_split:
            size = split.tell()
            split.seek(0)
            beside[tar_split_path(digest)] = tree.unnamed_from(split, size, _MODE)
        tree.content.finish()
        return LayerCatalogs(digest=digest, tree=tree, files=self._catalogs, marker=marker, beside=beside).store()
