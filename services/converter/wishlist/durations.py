"""Durations as people write them: `90s`, `15m`, `12h`, `30d`, `2w`."""

import re
from typing import Final

from services.common.errors import InvalidValueError

__all__ = ["DURATION_PATTERN", "parse_duration"]

DURATION_PATTERN: Final = r"^[0-9]{1,6}(\.[0-9]{1,3})?(s|m|h|d|w)$"
"""Their form, for the JSON Schema."""

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_FORM = re.compile(DURATION_PATTERN.removesuffix("$"))


def parse_duration(text: str) -> float:
    """Return a duration, in seconds.

    Raises
    ------
    InvalidValueError
        It is of another form.
    """
    if not _FORM.fullmatch(text):
        raise InvalidValueError(f"not a duration (a number and s, m, h, d or w, such as 15m or 30d): {text[:80]!r}")
    return float(text[:-1]) * _SECONDS[text[-1]]
