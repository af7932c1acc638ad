"""Locks of one repository between processes of one machine; a process that ends, however it does, lets them go.

There are two, since most of the work needs no turn of its own:

- the *write lock* is held by the one who changes the head;
- objects are *used* by everybody who may make a revision name them, from the first look whether one is there until the
  revision is published or given up; they are *collected* by the one who deletes some, for whom all users wait.

Without the second, a collector could delete an object that a publisher has just found to be there. A collector closes
the gate that users come in by and then waits for those who are inside, so that it gets its turn however busy it is.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from services.repository.native.errors import RepositoryBusyError, StorageError

__all__ = ["RepositoryLocks"]

_WRITER: Final = ".writer-lock"
_GATE: Final = ".gate-lock"
_OBJECTS: Final = ".objects-lock"
_PAUSE: Final = 0.02
"""Seconds between two attempts: the kernel has no lock that is waited for with a bound."""


class RepositoryLocks:
    """The lock files of one repository (blocking; threads may share it).

    Parameters
    ----------
    directory
        Where the files are.
    place
        What is locked, for messages.
    """

    def __init__(self, directory: Path, *, place: str) -> None:
        self._directory = directory
        self._place = place

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the write lock; as `Storage.exclusive`."""
        with ExitStack() as stack:
            writer = self._open(stack, _WRITER)
            if not _try(writer, fcntl.LOCK_EX):
                raise RepositoryBusyError(f"another process writes to {self._place}")
            yield

    @contextmanager
    def using(self, *, patience: float) -> Iterator[None]:
        """Keep objects from being collected; as `Storage.using`."""
        message = f"objects of {self._place} are being collected; it did not end within {patience:g} s"
        deadline = time.monotonic() + patience
        with ExitStack() as stack:
            objects = self._open(stack, _OBJECTS)
            with ExitStack() as entering:
                _wait(self._open(entering, _GATE), fcntl.LOCK_SH, deadline, message)
                _wait(objects, fcntl.LOCK_SH, deadline, message)
            yield

    @contextmanager
    def collecting(self, *, patience: float) -> Iterator[None]:
        """Keep others from using objects; as `Storage.collecting`."""
        message = f"{self._place} was published to, or collected from, all the time for {patience:g} s"
        deadline = time.monotonic() + patience
        with ExitStack() as stack:
            _wait(self._open(stack, _GATE), fcntl.LOCK_EX, deadline, message)
            _wait(self._open(stack, _OBJECTS), fcntl.LOCK_EX, deadline, message)
            yield

    def _open(self, stack: ExitStack, name: str) -> int:
        path = self._directory / name
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"{self._place} cannot be locked: {path}: {error.strerror}") from error
        stack.callback(os.close, descriptor)
        return descriptor


def _wait(descriptor: int, kind: int, deadline: float, message: str) -> None:
    while not _try(descriptor, kind):
        if time.monotonic() >= deadline:
            raise RepositoryBusyError(message)
        time.sleep(_PAUSE)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
