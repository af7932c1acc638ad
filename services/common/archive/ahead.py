"""Reading ahead in a thread: a stream is decompressed and hashed while what came before is worked on."""

import queue
import threading
from types import TracebackType
from typing import Final, Self

from services.common.archive.stream import Source

__all__ = ["ReadAhead"]

_PIECE: Final = 1 << 20
_PIECES: Final = 3
"""Pieces in memory: one is read, one waits, one is taken."""


class ReadAhead:
    """A context manager and a source that is another one, read in a thread of its own.

    Errors of the other source are raised by `readinto`. At the end of the context the thread has ended, and the other
    source is the caller's again.

    Parameters
    ----------
    source
        The other one.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._empty: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[memoryview, int] | BaseException] = queue.SimpleQueue()
        self._buffer = memoryview(b"")
        self._left = memoryview(b"")
        self._ended: BaseException | bool = False
        self._thread = threading.Thread(target=self._run, name="read-ahead")

    def __enter__(self) -> Self:
        for _ in range(_PIECES):
            self._empty.put(memoryview(bytearray(_PIECE)))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._empty.put(None)
        self._thread.join()

    def readinto(self, buffer: memoryview, /) -> int:
        """Read at least one byte into the buffer and return the number, 0 at the end."""
        if not self._left and not self._next():
            return 0
        count = min(len(self._left), len(buffer))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def _next(self) -> bool:
        """Take the next piece, if there is one."""
        if isinstance(self._ended, BaseException):
            raise self._ended
        if self._ended:
            return False
        if self._buffer:
            self._empty.put(self._buffer)
            self._buffer = memoryview(b"")
        piece = self._full.get()
        if isinstance(piece, BaseException):
            self._ended = piece
            raise piece
        self._buffer, count = piece
        self._left = self._buffer[:count]
        self._ended = not count
        return bool(count)

    def _run(self) -> None:
        while (buffer := self._empty.get()) is not None:
            try:
                count = self._source.readinto(buffer) or 0
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is for who reads
                self._full.put(error)
                return
            self._full.put((buffer, count))
            if not count:
                return
