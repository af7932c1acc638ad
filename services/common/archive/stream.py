"""The uncompressed stream of a layer archive, read through one buffer and within the limits."""

import time
from typing import Final, Protocol

from services.common.archive.errors import ArchiveLimitError, ArchiveReadError, MalformedArchiveError
from services.common.archive.limits import ArchiveLimits

__all__ = ["BLOCK", "Source", "TarStream"]

BLOCK: Final = 512
"""Size of a tar block, in bytes."""

_BUFFER: Final = 1 << 20
"""Size of the buffer: large enough that system calls cost little, small enough for many layers at a time."""


class Source(Protocol):
    """Where a stream comes from: a blocking reader, such as a raw file."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Read at least one byte into the buffer and return the number, 0 at the end."""


class TarStream:
    """A buffered reader that hands out views of its buffer instead of copies.

    A view is valid until the next call of any method.

    Parameters
    ----------
    source
        The stream.
    limits
        `stream_size` and `seconds` are enforced here.
    """

    def __init__(self, source: Source, limits: ArchiveLimits) -> None:
        self._source = source
        self._limits = limits
        self._deadline = time.monotonic() + limits.seconds
        self._buffer = memoryview(bytearray(_BUFFER))
        self._start = 0
        self._end = 0
        self._read = 0

    @property
    def position(self) -> int:
        """Number of bytes that have been handed out."""
        return self._read - (self._end - self._start)

    def check_time(self) -> None:
        """Raise ArchiveLimitError when the time is up."""
        if time.monotonic() > self._deadline:
            raise ArchiveLimitError(
                f"the archive took longer than {self._limits.seconds:g} s, {self._read} bytes were read (limit seconds)"
            )

    def block(self) -> memoryview | None:
        """Return the next block, or nothing at the end of the stream.

        Raises
        ------
        MalformedArchiveError
            The stream ends inside the block.
        """
        start = self._start
        if self._end - start >= BLOCK:
            self._start = start + BLOCK
            return self._buffer[start : start + BLOCK]
        if start == self._end and not self._fill():
            return None
        return self.take(BLOCK)

    def take(self, size: int) -> memoryview:
        """Return exactly the next `size` bytes, which fit the buffer (1 MiB).

        Raises
        ------
        MalformedArchiveError
            The stream ends before.
        """
        while self._end - self._start < size:
            if not self._fill():
                raise self._cut_short()
        start = self._start
        self._start = start + size
        return self._buffer[start : start + size]

    def some(self, most: int) -> memoryview:
        """Return at least one and at most `most` of the next bytes.

        Raises
        ------
        MalformedArchiveError
            The stream has ended.
        """
        if self._start == self._end and not self._fill():
            raise self._cut_short()
        start = self._start
        self._start = min(self._end, start + most)
        return self._buffer[start : self._start]

    def skip(self, size: int) -> None:
        """Pass over the next `size` bytes.

        Raises
        ------
        MalformedArchiveError
            The stream ends before.
        """
        while size:
            size -= len(self.some(size))

    def rest(self) -> memoryview | None:
        """Return some of what is left, or nothing at the end of the stream."""
        if self._start == self._end and not self._fill():
            return None
        return self.some(_BUFFER)

    def _fill(self) -> bool:
        """Read more behind what is left in the buffer."""
        self.check_time()
        if self._start:
            left = self._end - self._start
            self._buffer[:left] = self._buffer[self._start : self._end]
            self._start, self._end = 0, left
        try:
            count = self._source.readinto(self._buffer[self._end :])
        except OSError as error:
            raise ArchiveReadError(f"the archive cannot be read on after {self._read} bytes: {error}") from error
        if not count:
            return False
        self._end += count
        self._read += count
        self._limits.check_stream_size(self._read)
        return True

    def _cut_short(self) -> MalformedArchiveError:
        return MalformedArchiveError(f"the tar stream is cut short: it ends at byte {self._read}, inside an entry")
