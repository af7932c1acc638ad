"""What unions and look-ups use beside local layers: repositories, and copies of layers that are not published yet."""

from collections.abc import Set as AbstractSet

from services.common.repository_name import RepositoryName
from services.node.cvmfs.repositories import Repositories
from services.node.layers import Layer, short_link
from services.node.local_copies import LocalCopies

__all__ = ["Uses"]


class Uses:
    """Keeps repositories mounted and copies there for as long as somebody uses them.

    Parameters
    ----------
    repositories
        The repositories on this machine.
    copies
        Local copies of layers that are not published yet.
    """

    def __init__(self, *, repositories: Repositories, copies: LocalCopies) -> None:
        self._repositories = repositories
        self._copies = copies

    @property
    def copies(self) -> int:
        """The number of copies."""
        return len(self._copies.all())

    def claim_copies(self, layer: Layer, lowers: AbstractSet[str] | None) -> None:
        """Note the copies that a layer's union, mounted by an earlier process, stands on.

        Parameters
        ----------
        lowers
            Short paths of what the union stands on; None where that cannot be seen, and it may be any of them.
        """
        for copy in self._copies.all():
            if lowers is None or short_link(str(copy.tree)) in lowers:
                self._copies.claim(copy.archive.digest, holder=layer.id)

    def claim_repositories(self, layer: Layer, names: list[RepositoryName]) -> None:
        """Note the repositories that a layer's union, mounted by an earlier process, stands on."""
        for name in names:
            self._repositories.claim(name, holder=layer.id)

    def adopt_repositories(self) -> None:
        """Take over what an earlier process left mounted; its users have been noted by now."""
        self._repositories.adopt()

    def forget(self, holder: str) -> None:
        """Note that `holder` uses nothing any more."""
        self._repositories.release(holder=holder)
        self._copies.release(holder=holder)

    async def shut_down(self) -> None:
        """Unmount every repository that this program has mounted."""
        await self._repositories.shut_down()
