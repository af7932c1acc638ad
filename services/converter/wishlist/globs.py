"""Globs: `*`, `?`, `[abc]`, `[a-z]`, `[!abc]`; every other character stands for itself.

Python's translation has no nested quantifiers (one `*` never gives back what another took), so that a pattern from
outside costs no more than its length times the text's.
"""

import fnmatch
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

from services.common.errors import InvalidValueError

__all__ = ["GLOB_LIMIT", "check_glob", "glob_matches", "is_glob", "matches_any", "path_glob_matches"]

GLOB_LIMIT: Final = 256
"""Longest pattern, in characters."""


def is_glob(text: str) -> bool:
    """Whether a pattern can match more than itself."""
    return any(sign in text for sign in "*?[")


def check_glob(pattern: str) -> str:
    """Return a pattern that is of its form.

    Raises
    ------
    InvalidValueError
        It is empty, too long, or has a bracket without its counterpart.
    """
    if not pattern or len(pattern) > GLOB_LIMIT:
        raise InvalidValueError(f"a pattern has 1 to {GLOB_LIMIT} characters: {pattern[:80]!r}")
    rest = pattern
    while "[" in rest:
        rest = rest.partition("[")[2].removeprefix("!")
        inside, bracket, rest = (rest.removeprefix("]")).partition("]")
        if not bracket:
            raise InvalidValueError(f"a '[' without ']' in the pattern {pattern!r}: close it, such as [0-9]")
        del inside
    return pattern


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(fnmatch.translate(pattern)).match


def glob_matches(pattern: str, text: str) -> bool:
    """Whether a pattern matches a whole text; `*` takes slashes as well."""
    return _compiled(pattern)(text) is not None


def matches_any(patterns: Iterable[str], text: str) -> bool:
    """Whether one of the patterns matches a whole text."""
    return any(glob_matches(pattern, text) for pattern in patterns)


def path_glob_matches(pattern: str, path: str) -> bool:
    """Whether a pattern matches a whole path component by component, as shells (and Go's `filepath.Match`) do."""
    patterns, parts = pattern.split("/"), path.split("/")
    return len(patterns) == len(parts) and all(map(glob_matches, patterns, parts))
