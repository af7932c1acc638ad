"""The data of an entry, into a file."""

import os
from typing import Final

from services.common.archive.entry import Entry
from services.common.archive.reader import TarReader

__all__ = ["write_data"]

_WHOLE: Final = 256 << 10
"""Files up to this size are written in one piece."""


def write_data(descriptor: int, entry: Entry, data: TarReader) -> None:
    """Write what the reader has of its current entry into a new file, and leave the holes."""
    if entry.extents is not None:
        _write_sparse(descriptor, entry, data)
    elif 0 < entry.size <= _WHOLE:
        _write_all(descriptor, data.whole())
    elif entry.size:
        _write_long(descriptor, data)


def _write_all(descriptor: int, view: memoryview) -> None:
    written = os.write(descriptor, view)
    while written < len(view):
        written += os.write(descriptor, view[written:])


def _write_long(descriptor: int, data: TarReader) -> None:
    while (view := data.some()) is not None:
        _write_all(descriptor, view)


def _write_sparse(descriptor: int, entry: Entry, data: TarReader) -> None:
    """Write the data where they belong and leave the holes."""
    os.ftruncate(descriptor, entry.size)
    extents = iter(entry.extents or ())
    position = left = 0
    while (view := data.some()) is not None:
        while view:
            if not left:
                position, left = next(extents)
            count = os.pwrite(descriptor, view[:left], position)
            position += count
            left -= count
            view = view[count:]
