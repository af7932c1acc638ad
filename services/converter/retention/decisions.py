"""What may be removed: pure rules on what has been recorded.

An image goes for one of two reasons, and only after the time that its wish list gives for it. It was *dropped*: a list
that was read whole does not wish it any more, or selects other tags. Or it is *gone*: its registry said several times,
over a day at least, that there is none, to somebody to whom it shows the repository. A repository that is shown with
nothing in it may be a registry that has lost its storage, so that it must have been like that for a month. All times
are the steady clock's, so that no clock that is set removes anything. Nothing at all is removed where more would be
than a run may remove: so much at once is a mistake somewhere.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from services.common.image_name import ImageName
from services.common.repository_name import RepositoryName
from services.converter.model import DAY
from services.converter.state.model import Removable

__all__ = ["Ceiling", "Removal", "removals"]

_TIMES: Final = 3
"""How often a registry must have said that there is no such image."""
_PERIOD: Final = DAY
"""Least seconds between the first and the last time."""
_EMPTIED_PERIOD: Final = 30 * DAY
"""Least seconds between them where the repository was empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A copy that is to be removed, and why."""

    name: ImageName
    repository: RepositoryName
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """How much a run may remove."""

    count: int
    """Most copies."""
    share: float
    """Most copies as a part of all; one may always be removed."""

    def of(self, total: int) -> int:
        """Return how many copies of so many may be removed."""
        return min(self.count, max(1, math.floor(self.share * total)))


def removals(
    candidates: Iterable[Removable], *, now: float, is_wished: Callable[[Removable], bool]
) -> Sequence[Removal]:
    """Return what is due to be removed.

    Parameters
    ----------
    candidates
        Copies that are dropped, or whose images are missing.
    now
        The time, by the steady clock.
    is_wished
        Whether some wish may still want a dropped copy, or has not been looked at since it was dropped.
    """
    due = []
    for each in candidates:
        why = _gone(each, now) or (None if is_wished(each) else _dropped(each, now))
        if why is not None:
            due.append(Removal(name=each.name, repository=each.repository, why=why))
    return due


def _gone(each: Removable, now: float) -> str | None:
    if each.gone_after is None or each.missing_since is None or each.missing_last is None:
        return None
    said_for = each.missing_last - each.missing_since
    period = _EMPTIED_PERIOD if each.emptied else _PERIOD
    if each.missing < _TIMES or said_for < period or now - each.missing_since < each.gone_after:
        return None
    return (
        f"its registry has said {each.missing} times in {_days(said_for)} that there is none, "
        f"and its list keeps it for {_days(each.gone_after)}"
    )


def _dropped(each: Removable, now: float) -> str | None:
    if each.dropped is None or each.dropped_after is None or now - each.dropped < each.dropped_after:
        return None
    return f"{each.dropped_why} for {_days(now - each.dropped)}, and it was kept for {_days(each.dropped_after)}"


def _days(seconds: float) -> str:
    return f"{seconds / DAY:.1f} days"
