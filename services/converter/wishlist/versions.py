"""Versions and ranges of them: semantic versioning 2.0.0, and ranges in npm's notation.

Tags of images are laxer than semver, so versions are read as people write them there: a `v` before, one to three
numbers, and what follows a `-` as the pre-release (`24.04`, `v1.2`, `3.11.4-slim`). Missing numbers are zeros. As npm
has it, a pre-release is in a range only where the range itself names a pre-release of the same three numbers: `>=1.2`
takes neither `1.3.0-rc.1` nor `3.11.4-slim`. Build metadata (`+...`) cannot be in a tag.

No library is used: the maintained ones have no ranges (semver) or Python's own scheme (packaging), others are not
maintained, and the rules are short.
"""

import re
from dataclasses import dataclass
from functools import lru_cache, total_ordering
from typing import Final

from services.common.errors import InvalidValueError

__all__ = ["Version", "VersionRange"]

_NUMBER = r"(?:0|[1-9][0-9]{0,15})"
_LAX_NUMBER = r"[0-9]{1,16}"
_LABELS = r"[0-9A-Za-z.-]{1,128}"
_VERSION = re.compile(rf"[vV]?({_LAX_NUMBER})(?:\.({_LAX_NUMBER}))?(?:\.({_LAX_NUMBER}))?(?:-({_LABELS}))?")
_PARTIAL = rf"[vV]?(?:{_LAX_NUMBER}|[xX*])(?:\.(?:{_LAX_NUMBER}|[xX*])){{0,2}}(?:-{_LABELS})?"
_COMPARATOR = re.compile(rf"(?P<sign>>=|<=|>|<|=|\^|~>?)?\s*(?P<partial>{_PARTIAL})")
_HYPHEN = re.compile(rf"(?P<low>{_PARTIAL})\s+-\s+(?P<high>{_PARTIAL})")
_LIMIT: Final = 256
"""Longest range, in characters."""
_NUMBERS: Final = 3


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A version."""

    numbers: tuple[int, int, int]
    pre: tuple[str, ...] = ()
    """Labels of the pre-release."""

    @classmethod
    def parse(cls, text: str) -> "Version | None":
        """Read a tag; None where it is no version."""
        match = _VERSION.fullmatch(text)
        if match is None:
            return None
        major, minor, patch, pre = match.groups()
        return cls((int(major), int(minor or 0), int(patch or 0)), tuple(pre.split(".")) if pre else ())

    def __lt__(self, other: "Version") -> bool:
        return self._rank < other._rank

    @property
    def _rank(self) -> tuple[object, ...]:
        # A release is above its pre-releases; numbers are below words (rule 11 of semver.org).
        labels = [(not label.isdecimal(), int(label) if label.isdecimal() else 0, label) for label in self.pre]
        return (self.numbers, not self.pre, labels)


@dataclass(frozen=True, slots=True)
class _Bounds:
    """From the lower one, which is in it, to the upper one, which is not; None is no bound."""

    lower: Version | None = None
    upper: Version | None = None
    named_pre: frozenset[tuple[int, int, int]] = frozenset()
    """Numbers of which the range names a pre-release."""

    def contains(self, version: Version) -> bool:
        return (
            (self.lower is None or version >= self.lower)
            and (self.upper is None or version < self.upper)
            and (not version.pre or version.numbers in self.named_pre)
        )


class VersionRange:
    """A range of versions: `>=1.2 <3`, `^1.2.3`, `~1.2`, `1.x`, `1.2 - 2.3`, and several with `||`.

    Parameters
    ----------
    text
        The range.

    Raises
    ------
    InvalidValueError
        It is no range.
    """

    __slots__ = ("_alternatives",)

    def __init__(self, text: str) -> None:
        if len(text) > _LIMIT:
            raise InvalidValueError(f"a range of versions has at most {_LIMIT} characters: {text[:80]!r}")
        self._alternatives = tuple(_alternative(part.strip(), text) for part in text.split("||"))

    def contains(self, version: Version) -> bool:
        """Whether a version is in the range."""
        return any(all(bounds.contains(version) for bounds in each) for each in self._alternatives)


def _alternative(part: str, text: str) -> tuple[_Bounds, ...]:
    if (hyphen := _HYPHEN.fullmatch(part)) is not None:
        found = [_bounds(">=", hyphen["low"]), _bounds("<=", hyphen["high"])]
    else:
        found, position = [], 0
        while position < len(part):
            match = _COMPARATOR.match(part, position)
            if match is None or (match.end() < len(part) and part[match.end()] not in " ,"):
                raise InvalidValueError(f"not a range of versions, such as '>=1.2 <3', '^1.2' or '1.x': {text!r}")
            found.append(_bounds(match["sign"] or "=", match["partial"]))
            position = match.end()
            while position < len(part) and part[position] in " ,":
                position += 1
        if not found:
            raise InvalidValueError(f"not a range of versions, such as '>=1.2 <3' (for all: '*'): {text!r}")
    # A pre-release that one comparator names is in the range if all of them take it.
    named = frozenset().union(*(bounds.named_pre for bounds in found))
    return tuple(_Bounds(bounds.lower, bounds.upper, named) for bounds in found)


@lru_cache(maxsize=1024)
def _bounds(sign: str, partial: str) -> _Bounds:
    core, _, pre = partial.lstrip("vV").partition("-")
    numbers = [int(part) for part in re.split(r"[xX*]", core)[0].split(".") if part]
    given = len(numbers)
    if given == 0:
        return _NOTHING if sign in ("<", ">") else _Bounds()
    low = Version(_padded(numbers), tuple(pre.split(".")) if pre and given == _NUMBERS else ())
    # Where a line such as 1.2 ends: below the first version of the next, its pre-releases included.
    above = _following(low) if given == _NUMBERS else _below(_next(numbers, given - 1))
    leading = next((place for place, number in enumerate(numbers) if number), given - 1)
    limits: dict[str, tuple[Version | None, Version | None]] = {
        ">=": (low, None),
        ">": (above, None),
        "<": (None, low if low.pre else _below(low.numbers)),
        "<=": (None, above),
        "=": (low, above),
        "^": (low, _below(_next(numbers, leading))),
        "~": (low, _below(_next(numbers, min(1, given - 1)))),
        "~>": (low, _below(_next(numbers, min(1, given - 1)))),
    }
    return _Bounds(*limits[sign], frozenset({low.numbers}) if low.pre else frozenset())


def _padded(numbers: list[int]) -> tuple[int, int, int]:
    major, minor, patch = [*numbers, 0, 0, 0][:_NUMBERS]
    return major, minor, patch


def _next(numbers: list[int], place: int) -> tuple[int, int, int]:
    return _padded([*numbers[:place], numbers[place] + 1])


def _below(numbers: tuple[int, int, int]) -> Version:
    return Version(numbers, ("0",))


def _following(version: Version) -> Version:
    """Return the least version above one: a pre-release gets one more label, a release the next number."""
    if version.pre:
        return Version(version.numbers, (*version.pre, "0"))
    return _below(_next(list(version.numbers), _NUMBERS - 1))


_NOTHING: Final = _Bounds(_below((0, 0, 0)), _below((0, 0, 0)))
