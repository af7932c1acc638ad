"""What lies in the places of layers, in a repository that is a tree of files."""

import os
from pathlib import Path

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.layout import LAYERS_DIRECTORY, LayerLayout, layer_home, sidecar_path
from services.repository.interface import ListedLayer

__all__ = ["list_tree"]


def list_tree(root: Path, shard: str, layout: LayerLayout) -> tuple[ListedLayer, ...]:
    """List the layers whose digests begin with two hex digits, in their order; blocking.

    A link that leads nowhere is a batch of the kind `directory` under way, and not listed.

    Parameters
    ----------
    root
        Root of the published tree.
    shard
        The two digits.
    layout
        Paths that thin images name.

    Raises
    ------
    OSError
        The tree cannot be read.
    """
    try:
        names = sorted(os.listdir(root / LAYERS_DIRECTORY / shard))
    except FileNotFoundError:
        return ()
    digests = filter(None, map(_digest, names))
    return tuple(
        ListedLayer(
            digest=digest,
            whole=os.path.exists(root / sidecar_path(digest)),
            linked=os.path.exists(root / layout.path(digest)),
        )
        for digest in digests
        if os.path.exists(root / layer_home(digest))
    )


def _digest(name: str) -> Digest | None:
    try:
        return Digest(name)
    except InvalidValueError:
        return None
