"""Which revisions are kept."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from services.common.errors import InvalidValueError
from services.repository.native.revisions import RevisionRecord

__all__ = ["GRACE", "Retention"]

GRACE: Final = 3600
"""Seconds for which a revision is kept after the next one: that long a client may take to notice it. Objects that are
younger are not collected either."""
_DAY: Final = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much of the past is kept, besides whatever has a tag.

    Raises
    ------
    InvalidValueError
        It would not even keep the head.
    """

    revisions: int
    """So many of the newest ones, the head included."""
    days: float
    """Those that were the head at any time within so many days."""

    def __post_init__(self) -> None:
        if self.revisions < 1 or self.days < 0:
            raise InvalidValueError("at least one revision is kept, and no negative number of days")

    def kept(self, newest_first: Iterable[RevisionRecord], *, now: float) -> Iterator[RevisionRecord]:
        """Iterate over the revisions that are kept; no other one is asked for, since it may be damaged.

        Parameters
        ----------
        newest_first
            The revisions of the repository, the head first.
        now
            Seconds since the epoch.
        """
        horizon = now - max(self.days * _DAY, GRACE)
        for number, record in enumerate(newest_first, start=1):
            yield record
            if number >= self.revisions and record.published < horizon:
                return  # the revision before this one was the newest until then
