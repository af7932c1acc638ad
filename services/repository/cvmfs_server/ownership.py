"""Which open transaction is the publisher's own."""

from services.repository.cvmfs_server.claim import claim, claimant
from services.repository.cvmfs_server.intention import IntentionFile
from services.repository.cvmfs_server.place import Place

__all__ = ["Ownership"]


class Ownership:
    """The tokens of a repository's transactions that are the publisher's own.

    Parameters
    ----------
    place
        Where the repository is.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._intention = IntentionFile(place.flag)
        self._own: set[str] = set()

    def add(self, token: str) -> None:
        """Take a transaction for one's own, whether it has been opened or not."""
        self._own.add(token)

    def clear(self) -> None:
        """Forget all: none of them is open."""
        self._own.clear()

    def is_open(self) -> bool:
        """Tell whether the open transaction is one's own; blocking.

        One that nobody has claimed is, if the publisher was about to open it. It is claimed then: an abort that is cut
        off is made good by whoever is next, however the rest of it looks.
        """
        token = claimant(self._place.flag)
        if token is None:
            intention = self._intention.read()
            if (
                intention is not None
                and intention.token in self._own
                and intention.made(self._place.flag, self._place.scratch)
            ):
                try:
                    claim(self._place.flag, intention.token)
                except FileNotFoundError:
                    return False  # somebody has aborted it
                self._intention.remove()
                token = intention.token
        return token in self._own

    def living_opener(self) -> str | None:
        """Return the identity of the process that opens a transaction of one's own, if it lives."""
        intention = self._intention.read()
        return None if intention is None or intention.token not in self._own else intention.living_opener
