"""Where a layer and its sidecar live in a repository.

Every layer has one *home*, `.layers/<first 2 hex>/<digest>/`, whatever the layout. It holds

- `layerfs/`, the layer's files (DUCC's name, so that tools made for unpacked.cern.ch find them),
- `layer.json`, the sidecar,
- `layer.tar-split.gz`, where the sidecar says so, which podman needs to make the layer's archive again, and
- where the repository is CVMFS, `.cvmfscatalog`: beside `layerfs`, so that the layer is a nested catalog of its own
  and containers do not see the marker. (A native repository, which can hide markers, has more of them in large layers.)

The layout decides the path that descriptors name: `ducc` is the path of `layerfs` itself, `flat` adds `/<digest>` as a
relative symbolic link to it. In a flat directory proper the catalog marker would have to lie inside the layer, where
containers would see it.
"""

from enum import StrEnum
from typing import Final

from services.common.digest import Digest

__all__ = [
    "CATALOG_MARKER",
    "LAYERS_DIRECTORY",
    "LayerLayout",
    "layer_home",
    "layer_tree",
    "sidecar_path",
    "tar_split_path",
]

LAYERS_DIRECTORY: Final = ".layers"
"""Directory of all layer homes, relative to the root of the repository."""

CATALOG_MARKER: Final = ".cvmfscatalog"
"""A file of this name makes its directory a nested catalog."""


def layer_home(digest: Digest) -> str:
    """Path of the directory that holds a layer and its sidecar, relative to the root of the repository."""
    return f"{LAYERS_DIRECTORY}/{digest[:2]}/{digest}"


def layer_tree(digest: Digest) -> str:
    """Path of the layer's files, relative to the root of the repository."""
    return f"{layer_home(digest)}/layerfs"


def sidecar_path(digest: Digest) -> str:
    """Path of the layer's sidecar, relative to the root of the repository."""
    return f"{layer_home(digest)}/layer.json"


def tar_split_path(digest: Digest) -> str:
    """Path of what the layer's archive has besides the files' content, relative to the root of the repository."""
    return f"{layer_home(digest)}/layer.tar-split.gz"


class LayerLayout(StrEnum):
    """The form of the layer paths that descriptors name."""

    FLAT = "flat"
    """`/<digest>`, the form of the original thin images."""

    DUCC = "ducc"
    """`/.layers/<first 2 hex>/<digest>/layerfs`, the form of unpacked.cern.ch."""

    def path(self, digest: Digest) -> str:
        """Path that a descriptor names for the layer, relative to the root of the repository."""
        return str(digest) if self is LayerLayout.FLAT else layer_tree(digest)
