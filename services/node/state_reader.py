"""Puts together how a node is; nothing here looks into a repository, whose client may hang."""

import contextlib
import time
from collections.abc import Sequence

from services.common.streams import run_in_thread
from services.node.cvmfs.finder import LayerFinder
from services.node.cvmfs.repositories import Repositories
from services.node.cvmfs.repository_io import RepositoryIo
from services.node.local_copies import LocalCopies, LocalCopy
from services.node.mounts import mount_table
from services.node.state import NodeState, RepositoryState

__all__ = ["NodeStateReader"]


class NodeStateReader:
    """Puts together what the parts of a node know.

    Parameters
    ----------
    copies
        Local copies of layers that are not published yet.
    finder
        Knows which repositories may be used.
    repositories
        Those that are in use.
    io
        Knows which ones hang.
    """

    def __init__(
        self, *, copies: LocalCopies, finder: LayerFinder, repositories: Repositories, io: RepositoryIo
    ) -> None:
        self._copies = copies
        self._finder = finder
        self._repositories = repositories
        self._io = io

    async def read(self) -> NodeState:
        """Return how the node is now."""
        copies = self._copies.all()
        users, hung = self._repositories.in_use(), self._io.hung()
        sizes, since, mounted = await run_in_thread(lambda: (*_measure(copies), {one.point for one in mount_table()}))
        return NodeState(
            repositories=[
                RepositoryState(
                    name=name,
                    users=users.get(name, 0),
                    mounted=str(self._repositories.place(name)) in mounted,
                    hung=hung.get(name, 0),
                )
                for name in self._finder.allowed
            ],
            copies=len(copies),
            copy_bytes=sizes,
            oldest_copy_age=max(0.0, time.time() - since) if copies else 0.0,
        )


def _measure(copies: Sequence[LocalCopy]) -> tuple[int, float]:
    """Return what copies take, and when the first of them was made."""
    total, since = 0, time.time()
    for copy in copies:
        with contextlib.suppress(FileNotFoundError):  # it shows in its repository by now
            since = min(since, copy.record.stat().st_mtime)
            total += copy.archive.uncompressed_size if copy.tree.is_dir() else 0
            total += copy.archive.path.stat().st_size
    return total, since
