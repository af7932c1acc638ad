"""Taking layers and flat images out: a new revision without them. What only they hold goes with the next collection."""

from collections.abc import Sequence
from contextlib import closing

from services.common.digest import Digest
from services.common.layout import LayerLayout
from services.repository.native.access import RepositoryAccess
from services.repository.native.errors import NativeError
from services.repository.native.writer.manifest import Manifest
from services.repository.native.writer.state import Highest, LocalState
from services.repository.native.writer.tree import RepositoryTree, TreeUpdate
from services.repository.public_names import flat_home

__all__ = ["remove_layers"]

_PATIENCE = 600.0
"""Longest wait for a collection, in seconds."""


def remove_layers(
    access: RepositoryAccess, digests: Sequence[Digest], *, flats: Sequence[Digest] = (), state: LocalState | None
) -> Manifest:
    """Publish a revision that lacks some layers and flat images (blocking).

    Parameters
    ----------
    access
        The repository.
    digests
        The layers; all of them must be there.
    flats
        The flat images, by their configurations; all of them must be there. Names go on leading to their places until
        the images that have these names are published again.
    state
        What the publisher keeps of its own revisions, where that is known: a number is then never given twice, even
        if the repository has been restored from a backup.

    Raises
    ------
    NativeError
        One of them is not there, in which case none is removed, or the repository cannot be changed.
    """
    # The layout says where links are put; those that are there are found and removed whatever it is.
    tree = RepositoryTree(storage=access.storage, compressor=access.compressor, layout=LayerLayout.DUCC)
    with (
        closing(tree),
        access.storage.using(patience=_PATIENCE),
        access.changing() as previous,
        TreeUpdate(tree, previous.root) as update,
    ):
        missing: list[str] = [digest for digest in digests if not update.remove(digest)]
        missing += [flat_home(config) for config in flats if not update.flats.remove(config)]
        if missing:
            raise NativeError(f"{access.storage} does not hold {', '.join(missing)}: nothing has been removed")
        highest = Highest(0, 0) if state is None else state.highest()
        revision, published = access.head.next_revision(previous, highest)
        root = update.store(previous=previous, revision=revision, published=published)
        if state is not None:
            state.note(Highest(revision, published))
        return access.head.publish(root, previous=previous)
