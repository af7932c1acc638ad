"""Numbers as people read them."""

from typing import Final

__all__ = ["readable_size", "readable_span"]

_UNITS: Final = ("KiB", "MiB", "GiB", "TiB")
_KIBI: Final = 1024
_PERIODS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def readable_size(count: int) -> str:
    """Write a number of bytes."""
    if count < _KIBI:
        return f"{count} B"
    number, unit = float(count), ""
    for unit in _UNITS:  # noqa: B007 - the last one stays
        number /= _KIBI
        if number < _KIBI:
            break
    return f"{number:.1f} {unit}"


def readable_span(seconds: float) -> str:
    """Write a time span, by its largest unit that fits."""
    for length, unit in _PERIODS:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return "0 s" if seconds <= 0 else "<1 s"
