"""What people want to know about the layers of a node."""

import json
from typing import Final

from services.common.streams import run_in_thread
from services.node.cvmfs.finder import LayerFinder
from services.node.cvmfs.repositories import Repositories
from services.node.layers import LayerId, LayerStore
from services.node.lineages import Lineages
from services.node.local_copies import LocalCopies
from services.node.mounted_unions import MountedUnions
from services.node.overlay_check import OverlayFeatures
from services.node.state_reader import NodeStateReader
from services.node.tree_size import tree_size

__all__ = ["HARD_LINKS", "HARD_LINKS_KEPT", "Reports"]

HARD_LINKS: Final = "Hard links made in thin containers"
"""What the status calls it: that two names of a file look like one file, though a repository is where it came from."""
HARD_LINKS_KEPT: Final = "one file to programs, but on images of several repositories"
"""What it says of them where all is as it should be."""


class Reports:
    """Descriptions of one layer, or of everything below one home directory; all by pairs of a name and a value.

    Parameters
    ----------
    layers
        The local layers.
    lineages
        Finds what lies below them.
    unions
        The unions that are mounted.
    copies
        Local copies of layers that are not published yet.
    finder
        Knows which repositories may be used.
    repositories
        Those that are in use.
    features
        What the kernel can do for unions.
    state
        Puts together how the node is, for programs.
    """

    def __init__(
        self,
        *,
        layers: LayerStore,
        lineages: Lineages,
        unions: MountedUnions,
        copies: LocalCopies,
        finder: LayerFinder,
        repositories: Repositories,
        features: OverlayFeatures,
        state: NodeStateReader,
    ) -> None:
        self._layers = layers
        self._lineages = lineages
        self._unions = unions
        self._copies = copies
        self._finder = finder
        self._repositories = repositories
        self._features = features
        self.state = state

    async def metadata(self, layer_id: LayerId) -> dict[str, str]:
        """Return a layer's directories and what its union is made of, for people."""
        layer = await self._lineages.find(layer_id)
        lineage = await self._lineages.of(layer)
        below = [str(part.diff) for part in (*lineage.container, *lineage.local)]
        metadata = {
            "MergedDir": str(layer.merged),
            "UpperDir": str(layer.diff),
            "WorkDir": str(layer.work),
            "LowerDir": ":".join(below),
        }
        if lineage.descriptor is not None:
            metadata["ThinLayers"] = json.dumps([part.url for part in reversed(lineage.descriptor.layers)])
        return metadata

    async def status(self) -> list[tuple[str, str]]:
        """Return what an administrator wants to know, as pairs of a name and a value."""
        copies = self._copies.all()
        cached = await run_in_thread(lambda: sum(tree_size(copy.archive.path.parent) for copy in copies))
        in_use = self._repositories.in_use()
        return [
            ("Home", str(self._layers.home)),
            ("Repositories", ", ".join(self._finder.allowed) or "none allowed"),
            ("Repositories in use", ", ".join(f"{name} ({users})" for name, users in sorted(in_use.items())) or "none"),
            ("Mounted unions", str(len(self._unions.mounted()))),
            ("Layers waiting to be published", str(len(copies))),
            ("Local copies", f"{cached} bytes"),
            (HARD_LINKS, self._hard_links()),
        ]

    def _hard_links(self) -> str:
        match self._features:
            case OverlayFeatures(xino=False):
                return "two files to programs, and du -x leaves files out: the kernel is older than Linux 4.17"
            case OverlayFeatures(origins=False):
                return f"two files to programs: the file system of {self._layers.home} has no UUID"
            case OverlayFeatures(origins=None):
                return f"not known: {self._layers.home} was full when it was to be tried"
        return HARD_LINKS_KEPT
