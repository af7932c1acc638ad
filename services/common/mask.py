"""Masks: directories that have a layer's deletions in them, and nothing else.

A mask holds whiteouts (0:0 devices) and opaque directories with bare parent directories, as overlayfs reads them
(kernel documentation, overlayfs.rst). It is stacked directly *below* its layer, so that directory attributes come from
the layer.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.common.archive.ondisk import OPAQUE_VALUE
from services.common.errors import SuiteError
from services.common.sidecar import encode_path

__all__ = ["UNPRIVILEGED_OPAQUE_XATTR", "MaskError", "fill_mask"]

UNPRIVILEGED_OPAQUE_XATTR: Final = "user.overlay.opaque"
"""What an opaque directory has for those who may not read `trusted` attributes, as in user namespaces."""


class MaskError(SuiteError):
    """The deletions contradict each other, or the file system cannot hold them; the text says which."""


def fill_mask(
    mask: Path, *, layer: str, whiteouts: Sequence[bytes], opaque: Sequence[bytes], attributes: Sequence[str]
) -> None:
    """Make the deletions of a layer in an empty directory; blocking.

    Parameters
    ----------
    mask
        A private directory. The paths have been checked, so nothing in them leads outside.
    layer
        How errors call the layer.
    whiteouts, opaque
        Paths below the layer's root.
    attributes
        Those that make a directory an opaque one.

    Raises
    ------
    MaskError
        A path is deleted with another one below it, or something cannot be made.
    """
    root = os.fsencode(mask)
    for paths, make in ((opaque, lambda place: _make_opaque(place, attributes)), (whiteouts, _make_whiteout)):
        for path in paths:
            try:
                make(os.path.join(root, path))
            except (FileExistsError, NotADirectoryError) as error:
                raise MaskError(
                    f"the sidecar of layer {layer} deletes a path and something at or below it: {_shown(path)}"
                ) from error
            except OSError as error:
                raise MaskError(
                    f"the deletions of layer {layer} cannot be kept below {mask.parent}: {_shown(path)}: "
                    f"{error.strerror}"
                ) from error


def _make_opaque(place: bytes, attributes: Sequence[str]) -> None:
    os.makedirs(place, exist_ok=True)
    for attribute in attributes:
        os.setxattr(place, attribute, OPAQUE_VALUE)


def _make_whiteout(place: bytes) -> None:
    os.makedirs(os.path.dirname(place), exist_ok=True)
    os.mknod(place, stat.S_IFCHR, os.makedev(0, 0))


def _shown(path: bytes) -> str:
    return encode_path(path[:200])
