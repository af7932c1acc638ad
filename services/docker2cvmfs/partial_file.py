"""Files that are received over several calls."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.common.hashed_file import HashedFile
from services.docker2cvmfs.errors import OutputError

__all__ = ["partial_file"]


@contextmanager
def partial_file(destination: Path) -> Iterator[HashedFile]:
    """Open the hidden file beside a destination, new or as an earlier call left it; in the end an empty one is removed.

    What was left may be anything: the digest of the whole decides.

    Raises
    ------
    OutputError
        Another process is writing it.
    OSError
        It cannot be opened.
    """
    path = destination.with_name(f".{destination.name}.part")
    with _locked(path) as file:
        try:
            yield file
        finally:
            if file.size == 0:
                path.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[HashedFile]:
    while True:
        with HashedFile(path, "r+b", opener=_open) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputError(f"another process is writing {path}: wait for its end") from None
            # Between the two calls its last writer may have given it its final name.
            if path.exists() and path.samefile(f"/proc/self/fd/{file.fileno()}"):
                yield file
                return


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o666)
