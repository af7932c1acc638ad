"""Puts the content of files into trays, and collects what became of it."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final, Protocol

from services.repository.native.records import ObjectKind
from services.repository.native.storage.interface import Buffer
from services.repository.native.writer.encoder import Encoded
from services.repository.native.writer.new_rows import NewRows
from services.repository.native.writer.pool import TRAY_SIZE, Tray, WorkerPool

__all__ = ["ContentWriter", "Encode", "Receiver"]

Encode = Callable[[Tray], "Future[Sequence[Encoded]]"]
"""Makes objects of a tray, as `WorkerPool.encode` does."""

_PIECES: Final = 256
"""Pieces of a tray: so few that small files keep all cores busy from early on."""

_Piece = tuple[int, int, int]
"""Number of a file, offset of the piece in it (-1 for a whole file), and size."""

_Waiting = tuple[Future[Sequence[Encoded]], list[_Piece]]


class Receiver(Protocol):
    """Whoever wants to know what objects a file became."""

    def whole(self, number: int, digest: bytes) -> None:
        """Take the object of a file that is one."""

    def chunk(self, number: int, offset: int, size: int, digest: bytes) -> None:
        """Take the object of a part of a file, in the order of their offsets."""


class ContentWriter:
    """One layer's content on its way; it holds at most one tray.

    Parameters
    ----------
    pool
        Has the trays.
    encode
        Makes the objects.
    receiver
        Told what they are, in the order in which the files came.
    """

    def __init__(self, pool: WorkerPool, encode: Encode, receiver: Receiver) -> None:
        self._pool = pool
        self._encode = encode
        self._receiver = receiver
        self._tray: Tray | None = None
        self._meanings: list[_Piece] = []
        self._waiting: deque[_Waiting] = deque()
        self._number = 0
        self._size = 0
        self._position = 0
        self._filled = 0
        self.new = NewRows()
        """Objects that the index does not know."""

    def close(self) -> None:
        """Give the tray back that has not been handed over."""
        if self._tray is not None:
            self._pool.return_tray(self._tray)
            self._tray = None

    def small(self, number: int, content: Buffer) -> None:
        """Take a file that fits a tray, in one go."""
        size = len(content)
        tray = self._room(size)
        end = tray.used + size
        tray.memory[tray.used : end] = content
        tray.used = end
        self._ends(tray, size, ObjectKind.FILE, (number, -1, size))

    def begin(self, number: int, size: int) -> None:
        """Begin a file that comes in pieces."""
        self._number, self._size, self._position, self._filled = number, size, 0, 0
        self._room(min(size, TRAY_SIZE))

    def write(self, content: memoryview) -> None:
        """Take the next bytes of the file that was begun."""
        while content:
            count = self._free()
            part = content[:count]
            tray = self._open_tray()
            tray.memory[tray.used : tray.used + len(part)] = part
            self._advance(tray, len(part))
            content = content[count:]

    def write_hole(self, size: int) -> None:
        """Take so many zeros as the next bytes of the file that was begun."""
        while size:
            count = min(size, self._free())
            tray = self._open_tray()
            tray.memory[tray.used : tray.used + count] = bytes(count)
            self._advance(tray, count)
            size -= count

    def finish(self) -> None:
        """Wait until everything has become objects.

        Raises
        ------
        StorageError
            Something has not.
        """
        if self._tray is not None:
            self._hand_over()
        while self._waiting:
            self._collect()

    def _free(self) -> int:
        """How much of the present object is still to come."""
        return min(TRAY_SIZE, self._size - self._position) - self._filled

    def _advance(self, tray: Tray, count: int) -> None:
        tray.used += count
        self._filled += count
        if self._free():
            return
        size, position = self._filled, self._position
        self._position += size
        self._filled = 0
        if self._size <= TRAY_SIZE:
            self._ends(tray, size, ObjectKind.FILE, (self._number, -1, size))
            return
        self._ends(tray, size, ObjectKind.CHUNK, (self._number, position, size))
        if self._position < self._size:
            self._room(min(TRAY_SIZE, self._size - self._position))

    def _ends(self, tray: Tray, size: int, kind: ObjectKind, meaning: _Piece) -> None:
        tray.piece_ends(size, kind)
        self._meanings.append(meaning)

    def _open_tray(self) -> Tray:
        if self._tray is None:
            self._tray = self._pool.take_tray()
        return self._tray

    def _room(self, size: int) -> Tray:
        """Return a tray that so many bytes fit into."""
        tray = self._tray
        if tray is not None and (tray.used + size > TRAY_SIZE or len(self._meanings) >= _PIECES):
            self._hand_over()
        return self._open_tray()

    def _hand_over(self) -> None:
        tray, self._tray = self._tray, None
        meanings, self._meanings = self._meanings, []
        if tray is None:
            return
        self._waiting.append((self._encode(tray), meanings))
        while self._waiting and self._waiting[0][0].done():
            self._collect()

    def _collect(self) -> None:
        future, meanings = self._waiting.popleft()
        for encoded, (number, offset, size) in zip(future.result(), meanings, strict=True):
            kind = ObjectKind.FILE
            if offset < 0:
                self._receiver.whole(number, encoded.digest)
            else:
                kind = ObjectKind.CHUNK
                self._receiver.chunk(number, offset, size, encoded.digest)
            if not encoded.known:
                self.new.add(encoded.key, kind, encoded.digest)
