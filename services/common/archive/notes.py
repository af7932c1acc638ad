"""Remarks about what could not be kept, bounded in number."""

from typing import Final

__all__ = ["Notes", "show"]

_KEPT: Final = 200
"""Number of remarks that are kept as they are; the rest is counted."""

_SHOWN: Final = 300
"""Length of a name in a message; longer ones are cut."""


def show(path: bytes) -> str:
    """Return a path or name from an archive as printable ASCII, quoted and cut to a length that fits a message."""
    text = repr(path)[1:]
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(path)} bytes)"


class Notes:
    """A list of remarks that a hostile archive cannot make long."""

    def __init__(self) -> None:
        self._notes: list[str] = []
        self._dropped = 0

    def add(self, note: str) -> None:
        """Keep a remark, or count it when there are many."""
        if len(self._notes) < _KEPT:
            self._notes.append(note)
        else:
            self._dropped += 1

    def collected(self) -> tuple[str, ...]:
        """Return the remarks in the order in which they came."""
        if self._dropped:
            return (*self._notes, f"and {self._dropped} more of this kind")
        return tuple(self._notes)
