"""The content of a file on its way into a tar stream, with its holes."""

import errno
import os
from typing import Final

from services.common.archive.errors import TreeChangedError
from services.common.archive.notes import show
from services.common.archive.tarwriter import TarWriter

__all__ = ["copy_content", "read_content"]

_PIECE: Final = 1 << 20
_SPARSE: Final = 1 << 20
"""Files from this size on are looked at for holes."""


def read_content(descriptor: int, size: int, path: bytes) -> bytes:
    """Read a small file in one piece.

    Raises
    ------
    TreeChangedError
        It has become shorter.
    """
    if not size:
        return b""
    content = os.read(descriptor, size)
    while len(content) < size:
        piece = os.read(descriptor, size - len(content))
        if not piece:
            raise _shorter(path)
        content += piece
    return content


def copy_content(descriptor: int, status: os.stat_result, path: bytes, writer: TarWriter) -> None:
    """Write a file piece by piece, without reading its holes.

    Raises
    ------
    TreeChangedError
        It has become shorter.
    """
    size = status.st_size
    holes = size >= _SPARSE and status.st_blocks * 512 < size
    position = 0
    while position < size:
        start, end = _next_data(descriptor, position, size) if holes else (position, size)
        if start > position:
            writer.zeros(start - position)
        position = start
        while position < end:
            piece = os.pread(descriptor, min(_PIECE, end - position), position)
            if not piece:
                raise _shorter(path)
            writer.data(piece)
            position += len(piece)
    if holes and os.fstat(descriptor).st_size < size:
        # What was cut off looks like a hole.
        raise _shorter(path)
    writer.pad(size)


def _next_data(descriptor: int, position: int, size: int) -> tuple[int, int]:
    """Return start and end of the next data, both the size where there are none."""
    try:
        start = os.lseek(descriptor, position, os.SEEK_DATA)
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size, size
        raise
    return min(start, size), min(end, size)


def _shorter(path: bytes) -> TreeChangedError:
    return TreeChangedError(f"{show(path)} became shorter while it was read; stop what writes to it and repeat")
