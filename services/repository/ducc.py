"""What DUCC leaves in the places that this suite publishes to, and that this suite's comes into the place of.

The paths are the same, and name what is to be there by its digest, or by the image's name. What has anything else in it
is somebody else's, and stays.
"""

from collections.abc import Iterable
from typing import Final

from services.common.layout import CATALOG_MARKER

__all__ = ["is_ducc_flat", "is_ducc_layer", "is_ducc_metadata"]

_TREE: Final = "layerfs"
_NOTES: Final = ".metadata"
_SCRIPTS: Final = ".singularity.d"
_MANIFEST: Final = "manifest.json"


def is_ducc_layer(names: Iterable[str]) -> bool:
    """Tell whether the home of a layer, by what is in it, is as DUCC makes it; only if no sidecar is there, it is."""
    found = frozenset(names)
    return _TREE in found and found <= {_TREE, _NOTES, CATALOG_MARKER}


def is_ducc_flat(names: Iterable[str]) -> bool:
    """Tell whether the root of a flat image, by what is in it, is as DUCC makes it."""
    return not {_SCRIPTS, CATALOG_MARKER}.isdisjoint(names)


def is_ducc_metadata(names: Iterable[str]) -> bool:
    """Tell whether a directory of documents, by what is in it, is as DUCC makes it."""
    return frozenset(names) == {_MANIFEST}
