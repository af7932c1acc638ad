"""A file that is read while it is written: one thread after the other appends, another one reads behind.

The reader waits for what has not arrived. It ends when the writer says that all has arrived, and fails with what the
writer failed with. Memory does not depend on the size: what has not been read yet is in the file.
"""

import os
import threading
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Self

from services.common.errors import SuiteError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import ReadableBuffer

__all__ = ["ArrivalFailedError", "ArrivingFile"]


class ArrivalFailedError(SuiteError):
    """The rest of a file does not come; `cause` is why, and says nothing about what has arrived."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"the rest does not come: {cause or type(cause).__name__}")
        self.cause = cause


class ArrivingFile(FileIO):
    """A new file, what has arrived of it, and whether that is all. Its methods block.

    Parameters
    ----------
    path
        Its name, which must be free.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), "xb+")
        self.path = path
        self.size = 0
        """Bytes that have arrived."""
        self._condition = threading.Condition()
        self._whole = False
        self._failure: BaseException | None = None

    def write(self, chunk: "ReadableBuffer", /) -> int:
        """Append all of it."""
        self.writelines((chunk,))
        return memoryview(chunk).nbytes

    def writelines(self, chunks: "Iterable[ReadableBuffer]", /) -> None:
        """Append all of them, and let the reader go on.

        Raises
        ------
        OSError
            Not everything could be written; the error names the file.
        """
        count = 0
        for chunk in chunks:
            left = memoryview(chunk).cast("B")
            count += len(left)
            while left:
                left = left[self._write_some(left) :]
        with self._condition:
            self.size += count
            self._condition.notify_all()

    def _write_some(self, view: memoryview) -> int:
        try:
            return os.write(self.fileno(), view)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def complete(self) -> None:
        """Say that all has arrived."""
        with self._condition:
            self._whole = True
            self._condition.notify_all()

    def fail(self, cause: BaseException) -> None:
        """Say that no more comes, and why."""
        with self._condition:
            self._failure = cause
            self._condition.notify_all()

    def wait_beyond(self, position: int) -> bool:
        """Wait until there is more than so many bytes; return whether there is.

        Raises
        ------
        ArrivalFailedError
            No more comes, and this is not all.
        """
        with self._condition:
            while self._failure is None and not self._whole and self.size <= position:
                self._condition.wait()
            if self._failure is not None:
                raise ArrivalFailedError(self._failure)
            return self.size > position

    def reader(self) -> "_Reader":
        """Return a reader that begins at the beginning."""
        return _Reader(self)

    def __enter__(self) -> Self:
        return self


class _Reader:
    """Reads what has arrived; its methods block."""

    def __init__(self, file: ArrivingFile) -> None:
        self._file = file
        self._position = 0

    def readinto(self, buffer: memoryview, /) -> int:
        """Read at least one byte into the buffer and return the number, 0 at the end.

        Raises
        ------
        ArrivalFailedError
            The rest does not come.
        """
        if not self._file.wait_beyond(self._position):
            return 0
        # What lies beyond is not there yet, so that no more can be read than has arrived.
        count = os.preadv(self._file.fileno(), [buffer], self._position)
        self._position += count
        return count
