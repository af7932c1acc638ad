"""What is wrong in a wish list, where, and what to do about it."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from services.converter.model import Origin, WishList

__all__ = ["Problem", "Reading", "Severity", "nearest"]


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"
    """It is left out, and nothing follows from its absence."""
    WARNING = "warning"
    """It is taken, maybe not as it was meant."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    origin: Origin
    severity: Severity
    text: str
    """What is wrong, and the remedy."""

    def __str__(self) -> str:
        return f"{self.origin}: {self.severity}: {self.text}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What became of a wish list's content."""

    wish_list: WishList | None
    """None where nothing of it can be used."""
    problems: tuple[Problem, ...]
    """In the order of their places."""
    files: frozenset[Path] = frozenset()
    """Further files that it depends on: keys."""

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that are no mere warnings."""
        return tuple(problem for problem in self.problems if problem.severity is Severity.ERROR)


def nearest(word: str, words: Iterable[str]) -> str:
    """Return a remedy for a misspelt word: the one that may be meant, or else all there are."""
    known = list(words)
    close = difflib.get_close_matches(word[:80], known, n=1)
    return f"is {close[0]!r} meant?" if close else f"there is {', '.join(known) or 'none'}"
