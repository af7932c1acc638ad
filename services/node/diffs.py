"""What a layer adds to those below it: as a tree or a descriptor, as a list, as a size."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.common.descriptor import ThinDescriptor
from services.common.streams import run_in_thread
from services.node.changes import Change, changes
from services.node.commit import Committer
from services.node.cvmfs.repository_io import RepositoryIo
from services.node.errors import UnsupportedError
from services.node.layers import Layer, LayerId, LayerKind
from services.node.lineage import holds_descriptor, trace
from services.node.lineages import Lineages
from services.node.merge import merged
from services.node.tree_size import tree_size
from services.node.union import UnionBuilder
from services.node.uses import Uses

__all__ = ["Diffs", "TreeDiff"]


@dataclass(frozen=True, slots=True)
class TreeDiff:
    """A diff that is the content of a layer's directory, or of several stacked ones."""

    trees: Sequence[Path]
    """The directories in the kernel's overlay encoding, base first."""
    below: Sequence[Path]
    """Those that they are stacked on, base first."""
    scratch: Path
    """Where several become one."""

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """Make it one directory for as long as the context lasts. Blocks."""
        if len(self.trees) == 1:
            yield self.trees[0]
            return
        with merged(self.trees, self.below, self.scratch) as tree:
            yield tree


class Diffs:
    """Comparisons of layers with what they stand on.

    Parameters
    ----------
    lineages
        Finds layers and what lies below them.
    builder
        Mounts what lies below a layer, to compare it with.
    committer
        Uploads what a container on a thin image has changed.
    uses
        Told when a comparison has ended.
    io
        Threads for looks into repositories.
    scratch
        Directory on the layers' file system, where several become one.
    """

    def __init__(
        self,
        *,
        lineages: Lineages,
        builder: UnionBuilder,
        committer: Committer,
        uses: Uses,
        io: RepositoryIo,
        scratch: Path,
    ) -> None:
        self._lineages = lineages
        self._builder = builder
        self._committer = committer
        self._uses = uses
        self._io = io
        self._scratch = scratch

    async def diff(self, layer_id: LayerId, parent: LayerId | None) -> TreeDiff | ThinDescriptor:
        """Return what a layer adds to its parent.

        Returns
        -------
        ThinDescriptor
            For a container on a thin image: its changes and every local layer below them have been uploaded, and the
            descriptor names them.
        TreeDiff
            For every other layer; for one of an image also what it and those below it add to an ancestor, as an
            image of one layer holds it.

        Raises
        ------
        CommitError
            The changes could not be uploaded.
        UnsupportedError
            The parent is neither a container's own nor an ancestor of an image's layer.
        """
        asked = await self._lineages.find(layer_id)
        if asked.parent != parent and (squashed := await self._squashed(asked, parent)) is not None:
            return squashed
        _refuse_others(asked, parent)
        if asked.kind is LayerKind.CONTAINER:
            lineage = await self._lineages.of(asked)
            if lineage.descriptor is not None:
                return await self._committer.commit(asked, lineage)
        return TreeDiff([asked.diff], [], self._scratch)

    async def changes(self, layer_id: LayerId, parent: LayerId | None) -> list[Change]:
        """Return what a layer changes in its parent's view.

        Raises
        ------
        RepositoryError
            A layer of the descriptor cannot be had in time, or its repository stops answering.
        """
        layer = await self._lineages.find(layer_id)
        _refuse_others(layer, parent)
        if layer.parent is None:
            return await run_in_thread(lambda: changes(layer.diff, None, step=_go_on))
        lineage = await self._lineages.of(layer)
        holder = f"{layer_id}.changes"
        try:
            async with self._builder.view(lineage, holder=holder) as view:
                if not (names := lineage.repositories):
                    return await run_in_thread(lambda: changes(layer.diff, view, step=_go_on))
                # A front end keeps the container locked meanwhile: one that hangs could not even be removed.
                return await self._io.follow(lambda step: changes(layer.diff, view, step=step), *names)
        finally:
            self._uses.forget(holder)

    async def size(self, layer_id: LayerId) -> int:
        """Return the sum of the sizes of a layer's own files, hard links counted once, in bytes."""
        layer = await self._lineages.find(layer_id)
        return await run_in_thread(lambda: tree_size(layer.diff))

    async def _squashed(self, layer: Layer, ancestor: LayerId | None) -> TreeDiff | None:
        """Return what an image's layer and those below it add to an ancestor; None if it is no diff of that kind."""
        chain = await self._lineages.chain(layer)
        ids = [link.id for link in chain]
        count = len(chain) if ancestor is None else ids.index(ancestor) if ancestor in ids[1:] else 0
        layers = chain[:count]
        if not layers or any(link.kind is LayerKind.CONTAINER for link in layers):
            return None
        if await asyncio.to_thread(holds_descriptor, layer):
            # It stands for all that lies below it.
            return TreeDiff([layer.diff], [], self._scratch)
        if (await asyncio.to_thread(trace, chain)).descriptor is not None:
            raise UnsupportedError(
                f"layer {layer.id} cannot be merged with those below it, which are a thin image's: "
                "commit a container of the image instead, which leaves nothing but a descriptor"
            )
        trees = [link.diff for link in reversed(chain)]
        return TreeDiff(trees[-count:], trees[:-count], self._scratch)


def _refuse_others(layer: Layer, parent: LayerId | None) -> None:
    if layer.parent != parent:
        raise UnsupportedError(
            f"layer {layer.id} can be compared with its parent {layer.parent or '(none)'} only, not with "
            f"{parent or 'nothing'}"
        )


def _go_on() -> None:
    """What local work does between its steps."""
