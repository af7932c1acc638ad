"""Who uses what: sets of users, not counts, so that noting a use twice changes nothing."""

from collections import defaultdict
from typing import Generic, TypeVar

__all__ = ["Holders"]

_Thing = TypeVar("_Thing")


class Holders(Generic[_Thing]):
    """The users of each thing that has any."""

    def __init__(self) -> None:
        self._users: defaultdict[_Thing, set[str]] = defaultdict(set)

    def add(self, thing: _Thing, holder: str) -> None:
        """Note that `holder` uses a thing."""
        self._users[thing].add(holder)

    def drop(self, holder: str) -> list[_Thing]:
        """Note that `holder` uses nothing any more; return the things that lost their last user."""
        idle = []
        for thing, users in list(self._users.items()):
            users.discard(holder)
            if not users:
                del self._users[thing]
                idle.append(thing)
        return idle

    def __contains__(self, thing: _Thing) -> bool:
        """Return whether anybody uses a thing."""
        return thing in self._users

    def counts(self) -> dict[_Thing, int]:
        """Return the number of users of each thing that has any."""
        return {thing: len(users) for thing, users in self._users.items()}
